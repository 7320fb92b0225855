"""The compiled clock as Python sees it: its C structures, its functions, and its events. See clock.c for how it
works.
"""

import ctypes
import importlib.machinery
from array import array
from collections.abc import Iterable
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from .engine_state import CR, EFLAGS, EIP, HFLAGS, EngineState, EngineStateError
from .ram import Ram

_HOOK_INTR: Final = 1
_HOOK_INSN: Final = 2
_HOOK_BLOCK: Final = 8
_HOOK_MEM_UNMAPPED: Final = 16 | 32 | 64
_HOOK_MEM_READ_PROT: Final = 128
_HOOK_MEM_WRITE_PROT: Final = 256
_HOOK_INSN_INVALID: Final = 16384
_HOOK_EDGE_GENERATED: Final = 32768
_INSN_IN: Final = 218
_INSN_SYSCALL: Final = 699

ANY_CR3: Final = 0xFFFF_FFFF_FFFF_FFFF
NR_BREAKPOINTS: Final = 4
"""enum of clock.h: how many breakpoints DR7 enables; the number of a watch that stands for none of them."""
NOT_MAPPED: Final = 0xFFFF_FFFF_FFFF_FFFF
"""No machine address: `translate_pages` found no frame in RAM."""


class Event(IntEnum):
    """enum event of clock.h."""

    NONE = 0
    DEADLINE = 1
    EXCEPTION = 2
    SYSCALL = 3
    SYSENTER = 4
    IO = 5
    STOP_POINT = 6
    WATCH = 7
    CPUID = 8
    ENGINE = 9


class PredicateStep(ctypes.Structure):
    """struct predicate_step."""

    _fields_ = [("op", ctypes.c_uint32), ("operand", ctypes.c_uint32), ("value", ctypes.c_uint64)]


class PredicateEntry(ctypes.Structure):
    """struct predicate."""

    _fields_ = [
        ("nr_tables", ctypes.c_uint64),
        ("tables", ctypes.c_uint64 * 2),
        ("nr_steps", ctypes.c_uint64),
        ("steps", ctypes.c_void_p),
    ]


class StopPointEntry(ctypes.Structure):
    """struct stop_point."""

    _fields_ = [("vaddr", ctypes.c_uint64), ("cr3", ctypes.c_uint64), ("predicate", ctypes.c_void_p)]


class WatchEntry(ctypes.Structure):
    """struct watch."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("maddr", "length", "access", "reach", "number", "hit")]


class PredecessorEntry(ctypes.Structure):
    """struct predecessor."""

    _fields_ = [("maddr", ctypes.c_uint64), ("next", ctypes.c_uint64)]


class Engine(ctypes.Structure):
    """struct engine: functions of the engine's library and host addresses of its state."""

    _fields_ = [
        (name, ctypes.c_void_p)
        for name in [
            "uc",
            "emu_start",
            "emu_stop",
            "reg_read",
            "reg_write",
            "hook_add",
            "hook_del",
            "ctl",
            "vmem_translate",
            "loop_exit",
            "tlb_flush",
            "tb_flush",
            "tb_lookup",
            "cpu",
            "cflags_next_tb",
            "icount_high",
            "regs",
            "eip",
            "eflags",
            "hflags",
            "cr",
            "error_code",
            "exception_is_int",
            "dr",
            "old_exception",
            "mxcsr",
            "sse_flags",
            "ram",
        ]
    ] + [("ram_size", ctypes.c_uint64)]


class Clock(ctypes.Structure):
    """struct clock, the part that is shared: all words of 64 bits, so that a memoryview of words can be used, too."""

    _fields_ = [
        ("count", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("event", ctypes.c_uint64),
        ("arg", ctypes.c_uint64 * 4),
        ("rflags", ctypes.c_uint64),
        ("cr2", ctypes.c_uint64),
        ("cr3", ctypes.c_uint64),
        ("cr3_pending", ctypes.c_uint64),
        ("tlb_pending", ctypes.c_uint64),
        ("code_pending", ctypes.c_uint64),
        ("code_limit", ctypes.c_uint64),
        ("skip_stop_point", ctypes.c_uint64),
        ("tsc_offset", ctypes.c_uint64),
        ("tsc_aux", ctypes.c_uint64),
        ("io_allowed", ctypes.c_uint64),
        ("rdtsc_allowed", ctypes.c_uint64),
        ("cpuid_allowed", ctypes.c_uint64),
        ("nr_stop_points", ctypes.c_uint64),
        ("stop_points", ctypes.c_void_p),
        ("nr_watches", ctypes.c_uint64),
        ("watches", ctypes.c_void_p),
        ("nr_predecessors", ctypes.c_uint64),
        ("predecessors", ctypes.c_void_p),
        ("watches_read", ctypes.c_uint64),
        ("breakpoints", ctypes.c_uint64 * 4),
        ("break_execute", ctypes.c_uint64),
        ("break_data", ctypes.c_uint64),
        ("engine", Engine),
        ("stale_blocks", ctypes.c_uint64),
        ("slow_blocks", ctypes.c_uint64),
        ("translations", ctypes.c_uint64),
        ("predicates", ctypes.c_uint64),
        ("predicate_steps", ctypes.c_uint64),
    ]


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL:
    """The compiled part of this package."""
    directory = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = directory / f"_clock{suffix}"
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.xdbg_create.restype = ctypes.c_void_p
            library.xdbg_block_hook_data.argtypes = [ctypes.c_void_p]
            library.xdbg_block_hook_data.restype = ctypes.c_void_p
            library.xdbg_run.restype = ctypes.c_uint64
            library.xdbg_run.argtypes = [ctypes.c_void_p]
            library.xdbg_set_rflags.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
            library.xdbg_destroy.argtypes = [ctypes.c_void_p]
            library.xdbg_find_predecessors.argtypes = [
                ctypes.c_void_p,
                ctypes.c_uint64,
                ctypes.c_void_p,
                ctypes.c_uint64,
            ]
            library.xdbg_find_predecessors.restype = ctypes.c_uint64
            library.xdbg_index_watches.argtypes = [ctypes.c_void_p]
            library.xdbg_translate_pages.argtypes = [
                *(ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64),
                *(ctypes.c_void_p, ctypes.c_uint64),
            ]
            library.xdbg_copy_changed_pages.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
            library.xdbg_copy_changed_pages.restype = ctypes.c_uint64
            return library
    raise EngineStateError("xdbg.machine._clock has not been built (pip install)")


def copy_changed_pages(destination: int, source: int, size: int) -> int:
    """Make `size` bytes at one host address equal to those at another, writing only pages that differ: how many."""
    return int(load_library().xdbg_copy_changed_pages(destination, source, size))


def translate_pages(ram: Ram, cr3: int, pages: "array[int]") -> None:
    """Replace each virtual address of a page by the machine address of its frame, or `NOT_MAPPED`."""
    address, length = pages.buffer_info()
    load_library().xdbg_translate_pages(ram.host_address, ram.size, cr3, address, length)


def find_predecessors(clock: Clock, frames: Iterable[int], nr_frames: int) -> list[tuple[int, int]]:
    """The pages right before pages of certain frames in the address space of the clock's CR3: (maddr, frame's maddr).

    `nr_frames` is how many frames RAM has.
    """
    is_edge = bytearray(nr_frames)
    for frame in frames:
        is_edge[frame] = 1
    marks = (ctypes.c_uint8 * nr_frames).from_buffer(is_edge)
    capacity = 64
    while True:
        found = (PredecessorEntry * capacity)()
        count = load_library().xdbg_find_predecessors(ctypes.addressof(clock), ctypes.addressof(marks), found, capacity)
        if count <= capacity:
            return list(dict.fromkeys((entry.maddr, entry.next) for entry in found[:count]))
        capacity = count


def index_watches(clock: Clock) -> None:
    """Prepare the compiled part for the watches and predecessors that it has been given."""
    load_library().xdbg_index_watches(ctypes.addressof(clock))


def create(
    library: ctypes.CDLL, engine_library: ctypes.CDLL, handle: ctypes.c_void_p, state: EngineState, ram: Ram
) -> Clock:
    """A clock for one engine, its hooks installed."""

    def function(name: str) -> int | None:
        try:
            return ctypes.cast(getattr(engine_library, name), ctypes.c_void_p).value
        except AttributeError:
            raise EngineStateError(f"no function {name}") from None

    env = state.env
    engine = Engine(
        uc=handle.value,
        emu_start=function("uc_emu_start"),
        emu_stop=function("uc_emu_stop"),
        reg_read=function("uc_reg_read"),
        reg_write=function("uc_reg_write"),
        hook_add=function("uc_hook_add"),
        hook_del=function("uc_hook_del"),
        ctl=function("uc_ctl"),
        vmem_translate=function("uc_vmem_translate"),
        loop_exit=function("cpu_loop_exit_noexc_x86_64"),
        tlb_flush=function("tlb_flush_x86_64"),
        tb_flush=function("tb_flush_x86_64"),
        tb_lookup=function("tb_htable_lookup_x86_64"),
        cpu=state.cpu,
        cflags_next_tb=state.cflags_next_tb,
        icount_high=state.icount_high,
        regs=env,
        eip=env + EIP,
        eflags=env + EFLAGS,
        hflags=env + HFLAGS,
        cr=env + CR,
        error_code=state.error_code,
        exception_is_int=state.exception_is_int,
        dr=state.dr,
        old_exception=state.old_exception,
        mxcsr=state.mxcsr,
        sse_flags=state.sse_flags,
        ram=ram.host_address,
        ram_size=ram.size,
    )
    address = library.xdbg_create(ctypes.byref(engine))
    if not address:
        raise MemoryError
    _add_hooks(library, engine_library, handle, address, ram.size)
    return Clock.from_address(address)


def add_watch_hook(engine_library: ctypes.CDLL, handle: ctypes.c_void_p, clock: Clock, maddr: int, size: int) -> int:
    """Announce accesses to a protected range of RAM. The hook's handle, for `remove_watch_hook`.

    Only frames that are protected may be covered: the engine is slow in storing to what a hook covers.
    """
    callback = ctypes.cast(load_library().xdbg_watch_hook, ctypes.c_void_p)
    data, added = ctypes.c_void_p(ctypes.addressof(clock)), ctypes.c_void_p()
    first, last = ctypes.c_uint64(maddr), ctypes.c_uint64(maddr + size - 1)
    kind = _HOOK_MEM_READ_PROT | _HOOK_MEM_WRITE_PROT
    error = engine_library.uc_hook_add(handle, ctypes.byref(added), kind, callback, data, first, last)
    if error or not added.value:
        raise EngineStateError(f"hook watch: error {error}")
    return added.value


def remove_watch_hook(engine_library: ctypes.CDLL, handle: ctypes.c_void_p, hook: int) -> None:
    """Undo `add_watch_hook`."""
    error = engine_library.uc_hook_del(handle, ctypes.c_void_p(hook))
    if error:
        raise EngineStateError(f"removing hook: error {error}")


def _add_hooks(
    library: ctypes.CDLL, engine_library: ctypes.CDLL, handle: ctypes.c_void_p, clock: int, ram_size: int
) -> None:
    everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
    outside_ram = ctypes.c_uint64(ram_size), ctypes.c_uint64(ANY_CR3)
    for kind, hook, extra in (
        (_HOOK_BLOCK, "block", ()),
        (_HOOK_EDGE_GENERATED, "translation", ()),
        (_HOOK_INTR, "interrupt", ()),
        (_HOOK_INSN_INVALID, "invalid", ()),
        (_HOOK_INSN, "syscall", (ctypes.c_int(_INSN_SYSCALL),)),
        (_HOOK_INSN, "in", (ctypes.c_int(_INSN_IN),)),
        (_HOOK_MEM_UNMAPPED, "outside", ()),
    ):
        callback = ctypes.cast(getattr(library, f"xdbg_{hook}_hook"), ctypes.c_void_p)
        data = ctypes.c_void_p(library.xdbg_block_hook_data(clock) if kind == _HOOK_BLOCK else clock)
        added = ctypes.c_void_p()
        where = outside_ram if kind == _HOOK_MEM_UNMAPPED else everywhere
        error = engine_library.uc_hook_add(handle, ctypes.byref(added), kind, callback, data, *where, *extra)
        if error:
            raise EngineStateError(f"hook {hook}: error {error}")
