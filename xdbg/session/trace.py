"""The recorder that a trace of a launched domain goes through, for `xdbg trace` and for `monitor trace`."""

from collections.abc import Sequence
from typing import TextIO

from xdbg.debug.running.observers import Observers
from xdbg.guestos.symbols import SymbolTable
from xdbg.trace.events import DEFAULT_KINDS, EVENT_KINDS, parse_kinds
from xdbg.trace.formats import FORMATS
from xdbg.trace.recorder import Recorder
from xdbg.trace.symbols import ProfileProcesses

from .launch import Launched


def make_recorder(launched: Launched, stream: TextIO, form: str, kinds: tuple[str, ...]) -> Recorder:
    """A recorder of these kinds of events that writes to `stream` in a format of `FORMATS`."""
    return Recorder(
        [FORMATS[form](stream)],
        kinds,
        kernel=SymbolTable.from_elf(launched.image.elf),
        processes=ProfileProcesses(launched.profile()),
    )


class ServedTrace:
    """`monitor trace`: a trace as text on `stream`, turned on and off by the debugger."""

    def __init__(self, launched: Launched, observers: Observers, stream: TextIO) -> None:
        self._launched = launched
        self._observers = observers
        self._stream = stream
        self._recorder: Recorder | None = None
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
        self._recorder = make_recorder(self._launched, self._stream, "text", chosen)
        self._observers.add(self._recorder)

    def stop(self) -> None:
        """Record nothing."""
        if self._recorder is not None:
            self._observers.remove(self._recorder)
            self._stream.flush()
        self._recorder = None
        self._active = ()
