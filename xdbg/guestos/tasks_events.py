"""What happens to the processes of the kernel `tasks`: its functions that are marked OBSERVED, and their arguments.

They are called with a task, or two, in rdi and rsi; task_exit() with status and signal behind the task; task_signal()
with a struct signal_info, in which signal 0 means that nothing is to happen. `task->pending` is such a structure too:
what is in there becomes a call of task_signal() before the task runs on.
"""

from collections.abc import Callable, Sequence
from typing import Final

from xdbg.abi.frames import Vaddr
from xdbg.machine.paging import NotMappedError

from .events import Execed, Exiting, Forked, GuestEvent, KernelRegisters, SignalInfo, Signalled, Spawned
from .memory import GuestMemory
from .structures import NoStructureError, StructLayout, Structures
from .symbols import SymbolTable

_RDX: Final = 2
_RSI: Final = 6
_RDI: Final = 7
_NAMES: Final = ("task_forked", "task_spawned", "task_execed", "task_exit", "task_signal")
_INFO_FIELDS: Final = ("signal", "code", "address", "sender", "fault")
_MAX_SIGNAL: Final = 64
_FATAL: Final = frozenset(range(1, 32)) - {17, 18, 19, 20, 21, 22, 23, 28}
"""All that this kernel can do upon a signal is to end the process. These are the signals that do so on Linux."""


class TasksEvents:
    """The events of a kernel, which may have all of the functions or, in an older form, only some."""

    def __init__(
        self,
        memory: GuestMemory,
        symbols: SymbolTable,
        structures: Structures,
        task: StructLayout,
        slot_of: Callable[[int], bytes | None],
    ) -> None:
        """`slot_of` gives the bytes of the task that a pointer leads to, None if it is no task."""
        self._memory = memory
        self._task = task
        self._slot_of = slot_of
        self._info = _info_layout(structures)
        names = _NAMES if self._info is not None else _NAMES[:-1]
        self._names = {symbols.address(name): name for name in names if name in symbols}

    @property
    def points(self) -> Sequence[Vaddr]:
        """Where the functions begin."""
        return tuple(self._names)

    def event(self, vcpu: KernelRegisters) -> GuestEvent | None:
        """What a call means."""
        name = self._names.get(vcpu.rip)
        first, second, third = vcpu.gpr[_RDI], vcpu.gpr[_RSI], vcpu.gpr[_RDX]
        slot = self._slot_of(first)
        if name is None or slot is None:
            return None
        pid = self._task.value(slot, "pid")
        match name:
            case "task_forked" | "task_spawned":
                child = self._slot_of(second)
                if child is None:
                    return None
                kind = Forked if name == "task_forked" else Spawned
                return kind(pid, self._task.value(child, "pid"))
            case "task_execed":
                return Execed(pid, self._task.text(slot, "path"))
            case "task_exit":
                return Exiting(pid, second & 0xFF, third & 0xFF)
            case _:
                return self._signalled(pid, slot, second)

    def change(self, event: Signalled, info: SignalInfo | None) -> Sequence[tuple[Vaddr, bytes]]:
        """The structure that task_signal() was given, changed."""
        layout = self._info
        if layout is None or (info is not None and info.signal not in _FATAL):
            return ()
        try:
            old = self._memory.read_kernel(event.where, layout.size)
        except NotMappedError:
            return ()
        if info is not None and info.signal == layout.value(old, "signal"):
            # Still the fault that it was: only what is told of it is another thing.
            return ((event.where, self._packed(info, fault=layout.value(old, "fault"))),)
        return ((event.where, self._packed(info or SignalInfo(0))),)

    def send(self, slot: bytes, at: Vaddr, info: SignalInfo) -> Sequence[tuple[Vaddr, bytes]]:
        """A signal for the task at `at`: not the first one, which no process can kill either, and one at a time."""
        place = self._task.fields.get("pending")
        if place is None or self._info is None or info.signal not in _FATAL:
            return ()
        if not self._task.value(slot, "parent") or self._info.value(self._task.raw(slot, "pending"), "signal"):
            return ()
        return ((Vaddr(at + place.offset), self._packed(info)),)

    def _signalled(self, pid: int, slot: bytes, where: int) -> Signalled | None:
        layout = self._info
        assert layout is not None
        try:
            data = self._memory.read_kernel(Vaddr(where), layout.size)
        except NotMappedError:
            return None
        signal = layout.value(data, "signal")
        if not 0 < signal <= _MAX_SIGNAL:
            return None
        info = SignalInfo(
            signal,
            layout.value(data, "code", signed=True),
            layout.value(data, "address"),
            layout.value(data, "sender", signed=True),
        )
        return Signalled(pid, info, Vaddr(where), traced=self._task.value(slot, "tracer") != 0)

    def _packed(self, info: SignalInfo, *, fault: int = 0) -> bytes:
        layout = self._info
        assert layout is not None
        data = bytearray(layout.size)
        values = {
            "signal": info.signal,
            "code": info.code,
            "address": info.address,
            "sender": info.sender,
            "fault": fault,
        }
        for name, value in values.items():
            place = layout.fields[name]
            mask = (1 << 8 * place.size) - 1
            data[place.offset : place.offset + place.size] = (value & mask).to_bytes(place.size, "little")
        return bytes(data)


def _info_layout(structures: Structures) -> StructLayout | None:
    try:
        layout = structures.struct_layout("signal_info")
    except NoStructureError:
        return None
    return layout if all(name in layout.fields for name in _INFO_FIELDS) else None
