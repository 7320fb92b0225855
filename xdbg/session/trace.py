"""The recorders that a trace goes through, for `xdbg trace` and for `monitor trace`."""

from collections.abc import Mapping, Sequence
from typing import TextIO

from xdbg.debug.running.observers import Observers
from xdbg.guestos.symbols import SymbolTable
from xdbg.trace.events import DEFAULT_KINDS, EVENT_KINDS, parse_kinds
from xdbg.trace.formats import FORMATS
from xdbg.trace.recorder import Recorder
from xdbg.trace.symbols import ProfileProcesses
from xdbg.xen.events import Observer, XenEvent
from xdbg.xen.vcpu import Vcpu

from .launch import Launched


class DomainRecorders:
    """An observer of a machine, with a recorder for each domain that is traced, by domid."""

    def __init__(self, recorders: Mapping[int, Observer]) -> None:
        self._recorders = recorders

    def observe(self, vcpu: Vcpu, event: XenEvent) -> None:
        """Hand an event to its domain's recorder."""
        recorder = self._recorders.get(vcpu.domain.domid)
        if recorder is not None:
            recorder.observe(vcpu, event)


def make_recorder(traced: Sequence[Launched], stream: TextIO, form: str, kinds: tuple[str, ...]) -> Observer:
    """What records these kinds of events of domains, and writes them to `stream` in a format of `FORMATS`.

    Events of other domains of their machine are passed over.
    """
    sink = FORMATS[form](stream)
    recorders = {
        launched.domain.domid: Recorder(
            [sink],
            kinds,
            kernel=SymbolTable.from_elf(launched.image.elf),
            processes=ProfileProcesses(launched.profile()),
        )
        for launched in traced
    }
    if list(recorders) == list(traced[0].hv.domains) and len(recorders) == 1:
        return recorders[traced[0].domain.domid]
    return DomainRecorders(recorders)


class ServedTrace:
    """`monitor trace`: a trace as text on `stream`, turned on and off by the debugger."""

    def __init__(self, launched: Launched, observers: Observers, stream: TextIO) -> None:
        self._launched = launched
        self._observers = observers
        self._stream = stream
        self._recorder: Observer | None = None
        self._active: tuple[str, ...] = ()

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of events that can be chosen."""
        return list(EVENT_KINDS)

    @property
    def active(self) -> Sequence[str]:
        """The kinds that are being recorded; none while it is off."""
        return [kind for kind in EVENT_KINDS if kind in self._active]

    @property
    def destination(self) -> str:
        """Where the trace goes."""
        return "the server's standard error"

    def start(self, kinds: Sequence[str]) -> None:
        """Record these kinds from now on, the usual ones if none is named. ValueError names one that does not exist."""
        chosen = parse_kinds(",".join(kinds)) if kinds else DEFAULT_KINDS
        self.stop()
        self._active = chosen
        self._recorder = make_recorder([self._launched], self._stream, "text", chosen)
        self._observers.add(self._recorder)

    def stop(self) -> None:
        """Record nothing."""
        if self._recorder is not None:
            self._observers.remove(self._recorder)
            self._stream.flush()
        self._recorder = None
        self._active = ()
