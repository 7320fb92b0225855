"""From a launched domain to the target that a debugger gets, with all that the session adds to it."""

from typing import TextIO

from xdbg.debug.running.machine_run import MachineRun
from xdbg.debug.target import DebugTarget
from xdbg.rsp import table

from .core_files import CoreFiles
from .launch import Launched
from .restart import DomainRestart, Stage
from .trace import ServedTrace


def make_target(
    launched: Launched, stage: Stage, stream: TextIO, core_files: CoreFiles, run: MachineRun
) -> DebugTarget:
    """The target. `stage` is where it is made anew; a trace goes to `stream`."""
    target = DebugTarget(launched.hv, launched.domain, launched.profile(), run)
    target.parts.append(DomainRestart(stage, launched, target.profile.kernel_path))
    target.trace = ServedTrace(launched, target.observers, stream)
    target.core_files = core_files
    table.providers(target)  # takes some milliseconds the first time: not when a debugger waits for it
    return target
