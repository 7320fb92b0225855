"""The one physical CPU: runs the guest at CPL 3 until an exit.

`Cpu.enter` and `Cpu.step` run the guest; between them everything is at rest, and RAM, page tables and registers may
be read and written at will. The engine's peculiarities end here; what the layers above may rely on:

* Exits are exact: see `exits`. `count` is the number of instructions retired since creation. A repeated string
  instruction counts one for each iteration and one more for its end (RCX has become 0); one if RCX was 0 at its start;
  under the guest's own trap flag, the iterations only. `step` moves by one of that unit. The instruction behind
  `mov ss` is a step of its own.
* Translated code follows RAM at each entry: code that the hypervisor, a device or the guest itself (through another
  mapping) wrote before is what runs. Within one entry, stores through the mapping that is executed are seen at once, as
  on hardware; stores through another mapping are seen at the next entry or `cpuid`, which is when x86 promises it.
* The TLB is flushed by `cr3 =` and `flush_tlb` only, at the next entry. A page-table change without one may be seen or
  not.
* Code is of 64 bits, or of 32 in a flat segment, as the descriptor behind CS says, which the hypervisor loads
  (`load_code`) or the guest itself by a far jump, call, return or iret. 32-bit code in any other segment is an
  `EngineExit`.
* The order of events at one place: deadline, then stop point, then the guest's own breakpoint, then the instruction's
  own exit.

AVX (VEX, EVEX), RDRAND, XSAVE, FSGSBASE, BMI, TSX are #UD: the processor is older.

Known differences from hardware: a read-modify-write of a page that is not present faults as a read; an access that runs
on from the low half of the address space into what is not canonical is #PF, if its last page is not present, and not
#GP; a call to a non-canonical address has written below the stack pointer before it faults; SSE does not notice
denormal operands (DE), nor tiny results that are exact (UE); fxsave is #GP and not #AC where it is misaligned by less
than 4; `mov` to and from CR1 and CR5-CR7 is #GP, not #UD; a far return without REX.W looks at 32 bits of RSP; `ret`
with an immediate of 32768 or more takes it for a negative number; `enter` does not look at the page where its stack
will end; the second encoding of `test` (F6 /1, F7 /1) is #UD; in 32-bit code an access does not look at the limit and
the type (read-only, execute-only) of its segment, nor whether the selector is null.
"""

import ctypes
from collections.abc import Callable
from typing import Final

from xdbg.abi.frames import Maddr, Vaddr

from . import clock, engine_state, exit_checks
from .breakpoints import Breakpoints
from .clock import Clock, Event
from .exits import (
    DeadlineExit,
    EngineExit,
    ExceptionExit,
    Exit,
    IoExit,
    StepExit,
    StopPointExit,
    SyscallExit,
    SysenterExit,
    WatchExit,
)
from .ram import Ram
from .registers import DR6_BS, RAX, RBX, RCX, RDX, TF, Registers
from .self_test import self_test
from .state import CpuState
from .stoppoints import StopPoints
from .watches import Watches

_DB: Final = 1
_PF: Final = 14
_U32: Final = 0xFFFF_FFFF

_COUNT: Final = Clock.count.offset // 8
_TSC_OFFSET: Final = Clock.tsc_offset.offset // 8
_DEADLINE_WORD: Final = Clock.deadline.offset // 8
_SKIP_WORD: Final = Clock.skip_stop_point.offset // 8
_CPUID_ALLOWED: Final = Clock.cpuid_allowed.offset // 8
_ARG: Final = Clock.arg.offset // 8

_DEADLINE: Final = DeadlineExit()
_STEP: Final = StepExit()
_SYSCALL: Final = SyscallExit()
_SYSENTER: Final = SysenterExit()

_FAILURES: Final = {
    1000: "access outside RAM",
    1001: "the CPU engine can not go on",
    1002: "a code segment that is neither of 64 bits nor flat and of 32",
    1003: "iret in 32-bit code that loads the flag VM",
}
"""enum failure of clock.h."""

CpuidResult = tuple[int, int, int, int]


def _no_cpuid(leaf: int, subleaf: int, count: int) -> CpuidResult:
    del leaf, subleaf, count
    return 0, 0, 0, 0


class Cpu(Registers):
    """A CPU over `ram`. Registers start as zero, CR3 as 0: set `cr3`, `rip`, `gpr` before the first entry.

    `cpuid(leaf, subleaf, count)` answers each cpuid instruction with EAX, EBX, ECX, EDX.
    """

    def __init__(self, ram: Ram) -> None:
        self._engine_library = engine_state.load_library()
        self._handle = engine_state.open_engine(self._engine_library, ram)
        located = engine_state.locate(self._engine_library, self._handle)
        engine_state.enter_long_mode(self._engine_library, self._handle)
        self._library = clock.load_library()
        self._clock = clock.create(self._library, self._engine_library, self._handle, located, ram)
        ctypes.c_bool.from_address(located.no_exit_request).value = True
        self._kept_for_the_engine = exit_checks.drop_exit_checks(self._engine_library, self._handle)
        super().__init__(ram, self._library, self._clock, located.env)
        self.ram = ram
        self.stop_points = StopPoints(self._clock)
        self.watches = Watches(self._clock, self._engine_library, self._handle, ram)
        self.breakpoints = Breakpoints(self._clock, ram, self.watches)
        self.cpuid: Callable[[int, int, int], CpuidResult] = _no_cpuid
        self._run = self._library.xdbg_run
        self_test(self)

    def __del__(self) -> None:
        """Give the engine's memory back."""
        if "_clock" in self.__dict__:
            self._engine_library.uc_close(self._handle)
            self._library.xdbg_destroy(self._argument)

    # --- time

    @property
    def count(self) -> int:
        """Instructions retired since creation."""
        return self._words[_COUNT]

    @count.setter
    def count(self, value: int) -> None:
        self._clock.count = value

    @property
    def predicate_steps(self) -> int:
        """Steps taken in predicates since creation: time that is not in `count`."""
        return int(self._clock.predicate_steps)

    @property
    def tsc_offset(self) -> int:
        """What rdtsc adds to `count`, modulo 2**64."""
        return self._words[_TSC_OFFSET]

    @tsc_offset.setter
    def tsc_offset(self, value: int) -> None:
        self._clock.tsc_offset = value & (1 << 64) - 1

    @property
    def tsc(self) -> int:
        """`count` + `tsc_offset`, not cut to 64 bits."""
        words = self._words
        return words[_COUNT] + words[_TSC_OFFSET]

    @property
    def tsc_aux(self) -> int:
        """What rdtscp gives in ECX."""
        return int(self._clock.tsc_aux)

    @tsc_aux.setter
    def tsc_aux(self, value: int) -> None:
        self._clock.tsc_aux = value & _U32

    @property
    def rdtsc_allowed(self) -> bool:
        """False: rdtsc and rdtscp are #GP (CR4.TSD)."""
        return bool(self._clock.rdtsc_allowed)

    @rdtsc_allowed.setter
    def rdtsc_allowed(self, value: bool) -> None:
        self._clock.rdtsc_allowed = value

    @property
    def cpuid_allowed(self) -> bool:
        """False: cpuid is #GP (CPUID faulting)."""
        return bool(self._words[_CPUID_ALLOWED])

    @cpuid_allowed.setter
    def cpuid_allowed(self, value: bool) -> None:
        self._words[_CPUID_ALLOWED] = value

    @property
    def io_allowed(self) -> bool:
        """True: in and out run, no device answers (reads are all ones). False: they are `IoExit`."""
        return bool(self._clock.io_allowed)

    @io_allowed.setter
    def io_allowed(self, value: bool) -> None:
        self._clock.io_allowed = value

    @property
    def diagnostics(self) -> Clock:
        """Counters of the compiled part, for tests and tuning: `stale_blocks`, `slow_blocks`, `translations`."""
        return self._clock

    # --- stop points

    def new_stop_points(self) -> StopPoints:
        """An empty set of stop points, which `use_stop_points` takes."""
        return StopPoints(self._clock)

    def use_stop_points(self, points: StopPoints) -> None:
        """Have this set in force from the next entry on, instead of the one that is; that stays as it is."""
        if points is not self.stop_points:
            self.stop_points = points
            points.dirty = True

    # --- running

    def enter(self, deadline: int, *, skip_stop_point: bool = False) -> Exit:
        """Run until an exit, at the latest when `count` is `deadline` (at once if it is already).

        A stop point at the present RIP stops, too, unless `skip_stop_point`. When evaluating predicates takes long, it
        comes back with a DeadlineExit before the deadline.
        """
        words = self._words
        words[_DEADLINE_WORD] = deadline
        words[_SKIP_WORD] = skip_stop_point
        if self.stop_points.dirty:
            self.stop_points.apply()
        if self.breakpoints.has_data:
            self.breakpoints.follow()
        if self.watches.dirty:
            self.watches.apply()
        event = self._run(self._argument)
        while event == Event.CPUID:
            event = self._emulate_cpuid()
        if event == Event.DEADLINE:
            return _DEADLINE
        if event == Event.SYSCALL:
            return _SYSCALL
        return self._exit(event)

    def step(self) -> Exit:
        """Run one instruction; a stop point at it does not stop. `StepExit`, or the exit that it caused."""
        result = self.enter(self._clock.count + 1, skip_stop_point=True)
        return _STEP if result is _DEADLINE else result

    def _exit(self, event: int) -> Exit:
        words = self._words
        detail = _ARG
        if event == Event.EXCEPTION:
            vector, length, last = words[detail], words[detail + 2], words[detail + 3]
            return ExceptionExit(
                vector=vector,
                error_code=words[detail + 1],
                software=length != 0,
                cr2=Vaddr(last) if vector == _PF else None,
                dr6=last & _U32 if vector == _DB else 0,
                length=length,
                before=vector == _DB and last > _U32,
            )
        if event == Event.STOP_POINT:
            return StopPointExit(Vaddr(self.rip))
        if event == Event.WATCH:
            return WatchExit(
                watches=self.watches.hits(),
                maddr=Maddr(words[detail]),
                size=words[detail + 1],
                write=bool(words[detail + 2]),
                trap=ExceptionExit(_DB, dr6=words[detail + 3]) if words[detail + 3] else None,
            )
        if event == Event.IO:
            return IoExit(port=words[detail], size=words[detail + 1], write=bool(words[detail + 2]))
        if event == Event.SYSENTER:
            return _SYSENTER
        assert event == Event.ENGINE
        failure = words[detail]
        return EngineExit(f"{_FAILURES.get(failure, f'engine error {failure}')} at {self.rip:#x}")

    def _emulate_cpuid(self) -> int:
        """Answer a cpuid instruction and go on: the event that ends the entry."""
        words, gpr = self._words, self.gpr
        length = words[_ARG]
        result = self.cpuid(gpr[RAX] & _U32, gpr[RCX] & _U32, words[_COUNT])
        gpr[RAX], gpr[RBX], gpr[RCX], gpr[RDX] = (value & _U32 for value in result)
        self.rip += length
        words[_COUNT] += 1
        words[_SKIP_WORD] = False
        if self.rflags & TF:
            words[_ARG], words[_ARG + 1], words[_ARG + 2], words[_ARG + 3] = _DB, 0, 0, DR6_BS
            return Event.EXCEPTION
        return int(self._run(self._argument))

    # --- state

    def save(self) -> CpuState:
        """All of the state that a vcpu owns; not CR3, GDT, LDT, `count`."""
        return CpuState.take(self._library, self._clock)

    def load(self, state: CpuState) -> None:
        """Make `state` the CPU's."""
        state.put(self._library, self._clock)
