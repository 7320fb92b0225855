"""Beginning anew at a debugger's wish, without ending its connection.

What is started is what the user launched; only the kernel's command line may be another. Kernel and modules are read
again, so that one that was rebuilt meanwhile is what runs.
"""

from errno import ENOENT, ENOEXEC
from typing import Protocol

from xdbg.debug.inferiors.attached import KERNEL_PID
from xdbg.debug.target import DebugTarget
from xdbg.rsp.target import Program, TargetError

from .launch import Launched, LaunchError


class Stage(Protocol):
    """Where a domain is served."""

    def restart(self, append: str | None) -> DebugTarget:
        """Make the domain anew, perhaps with another command line; its target. Raises `LaunchError`."""
        ...


class DomainRestart:
    """`Restart` of a launched domain."""

    def __init__(self, stage: Stage, launched: Launched, kernel_path: str) -> None:
        self._stage = stage
        self._launched = launched
        self._kernel_path = kernel_path

    @property
    def program(self) -> Program:
        """The kernel and its command line."""
        return Program(KERNEL_PID, self._kernel_path, self._launched.what.append)

    def restart(self, path: str, arguments: str | None) -> DebugTarget:
        """The domain from its beginning. TargetError: ENOENT for a program other than the kernel, ENOEXEC."""
        own = {self._kernel_path, self._launched.what.kernel}
        if path and path.removeprefix("target:") not in own:
            why = "a program of the guest is started by its kernel, not from outside"
            raise TargetError(ENOENT, f"only the domain's kernel {self._kernel_path} can be started: {why}")
        try:
            return self._stage.restart(arguments)
        except LaunchError as error:
            raise TargetError(ENOEXEC, str(error)) from error
