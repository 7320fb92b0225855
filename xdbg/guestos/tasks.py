"""The bundled kernel `tasks`: processes in the table `tasks[]`, programs in a cpio archive that is the domain's module.

Only names are known here, those of guests/tasks/kernel.h; every offset comes from the kernel's debug information. A
slot of the table whose state is TASK_FREE is empty. `current` is the task whose address space is loaded; the kernel
idles if that task's state is not TASK_RUNNING. A task's user registers are in `regs` whenever it is not in user mode,
but for the kernel's first instructions (see `tasks_entry`).
"""

import struct
from collections.abc import Sequence
from typing import Final

from xdbg.abi.frames import Maddr, Mfn, Vaddr, mfn_to_maddr
from xdbg.machine.paging import NotMappedError

from .bare import BareProfile
from .cpio import members
from .events import GuestEvent, KernelRegisters, SignalInfo, Signalled
from .memory import GuestMemory, read_u64
from .profile import Process, UserRegisters, Vma
from .structures import NoStructureError, StructLayout, Structures
from .symbols import SymbolTable
from .tasks_entry import GPR, TasksEntry
from .tasks_events import TasksEvents

_SYMBOLS: Final = ("tasks", "current")
_TASK_FIELDS: Final = (
    "pid",
    "state",
    "name",
    "path",
    "parent",
    "tracer",
    "regs",
    "space.user_l4",
    "load_base",
    "entry",
)
_STATE_PREFIX: Final = "TASK_"
_RUNNING: Final = "running"
_ZOMBIE: Final = "zombie"
_FREE: Final = "free"
_MAX_TASKS: Final = 4096
_MAX_MFN: Final = 1 << 40


class TasksProfile:
    """The kernel `tasks`, by its symbols, its debug information and its memory."""

    def __init__(
        self,
        memory: GuestMemory,
        symbols: SymbolTable,
        structures: Structures,
        kernel: BareProfile,
        archives: Sequence[bytes] = (),
    ) -> None:
        """Raises `NoStructureError` if the debug information is not that of this kernel."""
        self._archives = tuple(archives)
        self._memory = memory
        self._kernel = kernel
        self._task = structures.struct_layout("task")
        self._vma = structures.struct_layout("vma")
        self._states = {
            value: name.removeprefix(_STATE_PREFIX).lower()
            for name, value in structures.enum_values("task_state").items()
        }
        self._tasks = symbols.address("tasks")
        self._current = symbols.address("current")
        table = symbols.get("tasks")
        assert table is not None
        missing = [name for name in _TASK_FIELDS if name not in self._task.fields]
        if missing:
            raise NoStructureError(f"struct task has no {missing[0]}")
        self._nr_tasks = min(table.size // max(self._task.size, 1), _MAX_TASKS)
        self._events = TasksEvents(memory, symbols, structures, self._task, self._slot_of)
        self._entry = TasksEntry(memory, symbols, structures, self._task)

    @classmethod
    def detect(
        cls,
        memory: GuestMemory,
        symbols: SymbolTable,
        kernel: BareProfile,
        archives: Sequence[bytes],
    ) -> "TasksProfile | None":
        """The profile, if the kernel is this one and was built with debug information."""
        if not all(name in symbols for name in _SYMBOLS):
            return None
        try:
            return cls(memory, symbols, Structures.from_elf(kernel.kernel_elf), kernel, archives)
        except NoStructureError:
            return None

    @property
    def name(self) -> str:
        """The guest's name."""
        return "tasks"

    @property
    def kernel_path(self) -> str:
        """Where `file` has the kernel."""
        return self._kernel.kernel_path

    def processes(self) -> Sequence[Process]:
        """The slots of tasks[] that are not free, by pid."""
        slots = self._slots()
        current = self._current_index()
        by_pid: dict[int, int] = {}
        for index, slot in enumerate(slots):
            if self._in_use(slot):
                # Should two slots claim one pid, the first has it.
                by_pid.setdefault(self._pid(slot), index)
        return tuple(self._process(slots, by_pid[pid], current) for pid in sorted(by_pid))

    def process(self, pid: int) -> Process | None:
        """The process of that number."""
        slots = self._slots()
        for index, slot in enumerate(slots):
            if self._pid(slot) == pid and self._in_use(slot):
                return self._process(slots, index, self._current_index())
        return None

    def current_pid(self, vcpu_id: int) -> int | None:
        """The task that `current` points at, if it runs; there is one vcpu."""
        slot = self._current_slot() if vcpu_id == 0 else None
        if slot is None:
            return None
        return self._pid(slot) if self._in_use(slot) and self._state(slot) == _RUNNING else None

    @property
    def event_points(self) -> Sequence[Vaddr]:
        """The functions that are marked OBSERVED."""
        return self._events.points

    def event(self, vcpu: KernelRegisters) -> GuestEvent | None:
        """What a call of one of them means."""
        return self._events.event(vcpu)

    def signal_writes(self, event: Signalled, info: SignalInfo | None) -> Sequence[tuple[Vaddr, bytes]]:
        """Into the structure that task_signal() was given."""
        return self._events.change(event, info)

    def send_writes(self, pid: int, info: SignalInfo) -> Sequence[tuple[Vaddr, bytes]]:
        """Into task->pending."""
        found = self._alive(pid)
        return () if found is None else self._events.send(found[1], found[0], info)

    def unsaved_registers(self, pid: int, vcpu: KernelRegisters) -> UserRegisters | None:
        """In the vcpu, and on the kernel's stack, until save() has copied them into the current task."""
        slot = self._current_slot()
        return None if slot is None or self._pid(slot) != pid else self._entry.unsaved(slot, vcpu)

    def unsaved_writes(
        self, pid: int, registers: UserRegisters, vcpu: KernelRegisters
    ) -> tuple[Sequence[tuple[Vaddr, bytes]], dict[int, int]]:
        """To the same places, and into the task: save() may have copied a part."""
        if self.unsaved_registers(pid, vcpu) is None:
            return (), {}
        writes, gpr = self._entry.writes(registers, vcpu)
        return [*writes, *self.register_writes(pid, registers)], gpr

    def register_writes(self, pid: int, registers: UserRegisters) -> Sequence[tuple[Vaddr, bytes]]:
        """Into task->regs, and into task->fpu if the registers have that part."""
        found = self._alive(pid)
        if found is None:
            return ()
        values = dict(zip(GPR, registers.gpr, strict=True)) | {"rip": registers.rip, "rflags": registers.rflags}
        at = found[0]
        places = self._task.fields
        writes = [(Vaddr(at + places[f"regs.{name}"].offset), struct.pack("<Q", values[name])) for name in values]
        if registers.fpu is not None and "fpu" in places:
            writes.append((Vaddr(at + places["fpu"].offset), registers.fpu[: places["fpu"].size]))
        return writes

    def file(self, path: str) -> bytes | None:
        """The kernel, or a member of the module archive."""
        kernel = self._kernel.file(path)
        if kernel is not None:
            return kernel
        found = (member for archive in self._archives for member in members(archive))
        return next((bytes(member.content) for member in found if member.path == path and member.is_file), None)

    # -- the table

    def _slots(self) -> list[bytes]:
        """All slots of tasks[], or none if the table can't be read."""
        size = self._task.size
        try:
            table = self._memory.read_kernel(self._tasks, self._nr_tasks * size)
        except NotMappedError:
            return []
        return [table[at : at + size] for at in range(0, len(table), size)]

    def _index_of(self, pointer: int) -> int | None:
        """The index in tasks[] that a pointer to a task leads to; None for NULL and for what is no task."""
        index, rest = divmod(pointer - self._tasks, self._task.size)
        return index if rest == 0 and 0 <= index < self._nr_tasks else None

    def _current_index(self) -> int | None:
        try:
            return self._index_of(read_u64(self._memory, self._current))
        except NotMappedError:
            return None

    def _current_slot(self) -> bytes | None:
        try:
            return self._slot_of(read_u64(self._memory, self._current))
        except NotMappedError:
            return None

    def _slot_of(self, pointer: int) -> bytes | None:
        """The task that a pointer leads to."""
        if self._index_of(pointer) is None:
            return None
        try:
            return self._memory.read_kernel(Vaddr(pointer), self._task.size)
        except NotMappedError:
            return None

    def _alive(self, pid: int) -> tuple[Vaddr, bytes] | None:
        """Where the task of that number is, and its bytes, unless it has ended."""
        for index, slot in enumerate(self._slots()):
            if self._pid(slot) == pid and self._in_use(slot) and self._state(slot) != _ZOMBIE:
                return Vaddr(self._tasks + index * self._task.size), slot
        return None

    # -- one slot

    def _in_use(self, slot: bytes) -> bool:
        return self._state(slot) != _FREE and self._pid(slot) > 0

    def _pid(self, slot: bytes) -> int:
        pid = self._task.value(slot, "pid")
        return pid if pid < 1 << 31 else 0

    def _state(self, slot: bytes) -> str:
        state = self._task.value(slot, "state")
        return self._states.get(state, f"state {state}")

    def _pid_at(self, slots: Sequence[bytes], pointer: int) -> int | None:
        """The pid of the task that a pointer leads to."""
        index = self._index_of(pointer)
        return None if index is None else self._pid(slots[index])

    def _process(self, slots: Sequence[bytes], index: int, current: int | None) -> Process:
        task, slot = self._task, slots[index]
        state = self._state(slot)
        ended = state == _ZOMBIE
        is_current = current == index and state == _RUNNING

        def table(mode: str) -> Maddr | None:
            mfn = task.value(slot, f"space.{mode}_l4")
            return mfn_to_maddr(Mfn(mfn)) if 0 < mfn < _MAX_MFN and not ended else None

        return Process(
            pid=self._pid(slot),
            name=task.text(slot, "name"),
            state=state,
            parent_pid=self._pid_at(slots, task.value(slot, "parent")),
            cr3=table("user"),
            kernel_cr3=table("kernel"),
            exec_path=task.text(slot, "path"),
            load_base=task.value(slot, "load_base"),
            entry=Vaddr(task.value(slot, "entry")),
            auxv=b"" if ended else self._auxv(slot),
            registers=None if ended else self._registers(slot),
            vmas=() if ended else self._vmas(slot),
            vcpu_id=0 if is_current else None,
            traced_by=self._pid_at(slots, task.value(slot, "tracer")),
            ended=ended,
            exit_status=task.value(slot, "exit_status", signed=True) if ended else None,
            exit_signal=(self._optional(slot, "exit_signal") or 0) if ended else 0,
        )

    def _registers(self, slot: bytes) -> UserRegisters:
        def reg(name: str) -> int:
            return self._task.value(slot, f"regs.{name}")

        # The upcall mask at the time of the trap is in the upper half of the frame's cs.
        return UserRegisters(
            gpr=tuple(reg(name) for name in GPR),
            rip=Vaddr(reg("rip")),
            rflags=reg("rflags"),
            cs=reg("cs") & 0xFFFF,
            ss=reg("ss") & 0xFFFF,
            fpu=self._task.raw(slot, "fpu") if "fpu" in self._task.fields else None,
            orig_rax=self._orig_rax(slot),
        )

    def _orig_rax(self, slot: bytes) -> int | None:
        number = self._optional(slot, "orig_rax")
        return None if number == (1 << 64) - 1 else number

    def _optional(self, slot: bytes, name: str) -> int | None:
        """A member that an older form of the structure lacks."""
        return self._task.value(slot, name) if name in self._task.fields else None

    def _elements(self, slot: bytes, array: str, count: str) -> list[bytes]:
        """The elements in use of an array in the task that has a counter."""
        place = self._task.fields.get(array)
        if place is None:
            return []
        used = min(self._task.value(slot, count), place.count)
        data, size = self._task.raw(slot, array), place.element_size
        return [data[i * size : (i + 1) * size] for i in range(used)]

    def _auxv(self, slot: bytes) -> bytes:
        return b"".join(self._elements(slot, "auxv", "nr_auxv"))

    def _vmas(self, slot: bytes) -> tuple[Vma, ...]:
        layout: StructLayout = self._vma
        return tuple(
            Vma(
                start=Vaddr(layout.value(data, "start")),
                end=Vaddr(layout.value(data, "end")),
                prot=layout.value(data, "prot"),
                offset=layout.value(data, "offset"),
                name=layout.text(data, "name"),
            )
            for data in self._elements(slot, "vmas", "nr_vmas")
        )
