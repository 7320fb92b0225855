"""The engine, opened by its C library, and where it keeps the state that its public interface does not show.

Unicorn has no way to read an error code, to set the privilege level, to say "at most N instructions" of the next
block, or to leave a block from a hook. All of that is there, in its CPU state. The fields are *located*: magic values
are written through the public interface and searched for behind the pointers of the engine's handle. What can not be
found so lies at a fixed distance from what can, and is checked to hold what it must hold in a new engine. `cpu.Cpu`
then tests the whole by running code. Anything unexpected raises `EngineStateError`, which names the version that this
was made for.

The CPU state (`env`) begins with 16 general registers, RIP, RFLAGS without its lazily computed bits, the lazy flags,
`hflags` (the bits that code depends on: CPL, mode, TS), six segment registers, LDT, TR, GDT, IDT and CR0-CR8.
"""

import ctypes
import importlib.util
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .ram import Ram

PINNED_VERSION: Final = (2, 1, 4)

_ARCH_X86: Final = 4
_MODE_64: Final = 8
_PROT_ALL: Final = 7
_CPU_SANDYBRIDGE: Final = 17
_CTL_WRITE: Final = 1 << 30
_CTL_EXITS_ENABLED: Final = 4
_CTL_EXITS: Final = 6
_CTL_CPU_MODEL: Final = 7
_CTL_TLB_TYPE: Final = 12
_CTL_CODE_BUFFER: Final = 13
_TLB_CPU: Final = 0
_CODE_BUFFER: Final = 128 << 20
"""What translated code may take before the engine drops all of it."""
_REG_CR0: Final = 50
_REG_CR3: Final = 53
_REG_CR4: Final = 54
_REG_DR0: Final = 66
_REG_RAX, _REG_RBX, _REG_RCX, _REG_RDX = 35, 37, 38, 40
_REG_FS_BASE: Final = 250
_REG_MSR: Final = 248
_REG_MXCSR: Final = 249
_MXCSR_MAGIC: Final = 0x7FA5
"""Rounding towards zero, exceptions masked, a pattern of flags."""
_TOWARDS_ZERO: Final = 3
_SSE_ROUNDING, _SSE_FLAGS = -7, -6
_MSR_EFER: Final = 0xC000_0080

_CONTEXT_HEADER: Final = 40

# Byte offsets in the CPU state.
EIP: Final = 128
EFLAGS: Final = 136
HFLAGS: Final = 176
SEGMENTS: Final = 184
SEGMENT_SIZE: Final = 24
LDT: Final = SEGMENTS + 6 * SEGMENT_SIZE
TR: Final = LDT + SEGMENT_SIZE
GDT: Final = LDT + 2 * SEGMENT_SIZE
IDT: Final = LDT + 3 * SEGMENT_SIZE
CR: Final = LDT + 4 * SEGMENT_SIZE

# In CPUState.
_ONE_CPU: Final = struct.pack("<II", 1, 1)  # nr_cores, nr_threads
_CFLAGS_NEXT_TB: Final = 24
_NO_CFLAGS: Final = b"\xff" * 4

_HFLAGS_MODE: Final = 0xC003  # CS64 LMA CPL
_HFLAGS_NEW: Final = 0xC000
_FS: Final = 4


class EngineStateError(RuntimeError):
    """The installed engine is not laid out as expected."""

    def __init__(self, what: str) -> None:
        pinned = ".".join(map(str, PINNED_VERSION))
        super().__init__(f"the CPU engine is not the one that this program is made for, unicorn {pinned}: {what}")


class Msr(ctypes.Structure):
    """uc_x86_msr."""

    _fields_ = [("rid", ctypes.c_uint32), ("value", ctypes.c_uint64)]


@dataclass(frozen=True, slots=True)
class EngineState:
    """Host addresses in one engine."""

    cpu: int
    env: int
    env_ptr: int
    error_code: int
    exception_is_int: int
    dr: int
    old_exception: int
    cflags_next_tb: int
    icount_high: int
    no_exit_request: int
    mxcsr: int
    sse_flags: int


def load_library() -> ctypes.CDLL:
    """The engine's C library, from the installed Python package (which itself is not imported: it is slow to)."""
    spec = importlib.util.find_spec("unicorn")
    if spec is None or not spec.submodule_search_locations:
        raise EngineStateError("package unicorn is not installed")
    path = Path(spec.submodule_search_locations[0]) / "lib" / "libunicorn.so.2"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineStateError(str(error)) from None
    packed = library.uc_version(None, None)
    version = (packed >> 24, packed >> 16 & 0xFF, packed >> 8 & 0xFF)
    if version != PINNED_VERSION:
        raise EngineStateError(f"found version {'.'.join(map(str, version))}")
    return library


def check(error: int, what: str) -> None:
    """Raise unless the engine answered "no error"."""
    if error:
        raise EngineStateError(f"{what}: error {error}")


def write_register(library: ctypes.CDLL, handle: ctypes.c_void_p, register: int, value: int) -> None:
    """Write a register through the public interface."""
    check(library.uc_reg_write(handle, register, ctypes.byref(ctypes.c_uint64(value))), f"register {register}")


def open_engine(library: ctypes.CDLL, ram: Ram) -> ctypes.c_void_p:
    """An engine whose physical memory is `ram`, in long mode with paging, no address at which it stops by itself.

    The CPU model has SSE4.2, AES, PCLMUL, POPCNT and RDTSCP, and nothing random (RDRAND came one model later).
    """
    handle = ctypes.c_void_p()
    check(library.uc_open(_ARCH_X86, _MODE_64, ctypes.byref(handle)), "open")
    check(library.uc_ctl(handle, _CTL_CPU_MODEL | 1 << 26 | _CTL_WRITE, ctypes.c_int(_CPU_SANDYBRIDGE)), "CPU model")
    buffer_size = ctypes.c_uint32(_CODE_BUFFER)
    check(library.uc_ctl(handle, _CTL_CODE_BUFFER | 1 << 26 | _CTL_WRITE, buffer_size), "code buffer")
    check(library.uc_ctl(handle, _CTL_TLB_TYPE | 1 << 26 | _CTL_WRITE, ctypes.c_int(_TLB_CPU)), "TLB type")
    map_ram(library, handle, ram)
    check(library.uc_ctl(handle, _CTL_EXITS_ENABLED | 1 << 26 | _CTL_WRITE, ctypes.c_int(1)), "exits")
    check(library.uc_ctl(handle, _CTL_EXITS | 2 << 26 | _CTL_WRITE, None, ctypes.c_size_t(0)), "exits")
    return handle


def map_ram(library: ctypes.CDLL, handle: ctypes.c_void_p, ram: Ram) -> None:
    """Give the engine all of RAM, readable, writable and executable: page tables say the rest."""
    size, host = ctypes.c_uint64(ram.size), ctypes.c_void_p(ram.host_address)
    check(library.uc_mem_map_ptr(handle, ctypes.c_uint64(0), size, _PROT_ALL, host), "map RAM")


def enter_long_mode(library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
    """Paging on, with NX and write protection, SSE usable, privilege level unchanged."""
    msr = Msr(_MSR_EFER, 0xD01)  # NXE LMA LME SCE
    check(library.uc_reg_write(handle, _REG_MSR, ctypes.byref(msr)), "EFER")
    write_register(library, handle, _REG_CR4, 0x620)  # OSXMMEXCPT OSFXSR PAE
    write_register(library, handle, _REG_CR0, 0x8005_0033)  # PG AM WP NE ET MP PE


def locate(library: ctypes.CDLL, handle: ctypes.c_void_p) -> EngineState:
    """Find the hidden state of a new engine, still at CPL 0. Its registers are destroyed."""
    magic = (0x5AFE_0001_D00D_F00D, 0x5AFE_0002_D00D_F00D, 0x5AFE_0003_D00D_F00D, 0x5AFE_0004_D00D_F00D)
    for register, value in zip((_REG_RAX, _REG_RCX, _REG_RDX, _REG_RBX), magic, strict=True):
        write_register(library, handle, register, value)
    marker, base = 0x0D0D_5AFE_1234_5678, 0x7ABC_5AFE_1000
    write_register(library, handle, _REG_DR0, marker)
    write_register(library, handle, _REG_FS_BASE, base)
    write_register(library, handle, _REG_CR3, 0x0ABC_D000)
    write_register(library, handle, _REG_MXCSR, _MXCSR_MAGIC)
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        cpu, env_ptr, env = _find_cpu(memory, handle, struct.pack("<4Q", *magic))
    finally:
        os.close(memory)
    state = ctypes.string_at(env, 0x2000)
    at = state.find(struct.pack("<Q", marker), 0x1000)
    if at < 0:
        raise EngineStateError("debug registers not found")
    _expect("FS base", state, SEGMENTS + _FS * SEGMENT_SIZE + 8, "<Q", base)
    _expect("CR3", state, CR + 24, "<Q", 0x0ABC_D000)
    (hflags,) = struct.unpack_from("<I", state, HFLAGS)
    if hflags & _HFLAGS_MODE != _HFLAGS_NEW:
        raise EngineStateError(f"hflags not where expected ({hflags:#x})")
    (icount_decr,) = struct.unpack("<Q", ctypes.string_at(cpu + env_ptr + 8, 8))
    if not cpu < icount_decr < env:
        raise EngineStateError("no instruction counter")
    return EngineState(
        cpu=cpu,
        env=env,
        env_ptr=env_ptr,
        error_code=env + at - 16,
        exception_is_int=env + at - 12,
        dr=env + at,
        old_exception=env + at + 96,
        cflags_next_tb=cpu + _CFLAGS_NEXT_TB,
        icount_high=icount_decr + 2,
        no_exit_request=_find_no_exit_request(library, handle),
        mxcsr=env + (mxcsr := _find_mxcsr(state)),
        sse_flags=env + mxcsr + _SSE_FLAGS,
    )


def _find_mxcsr(state: bytes) -> int:
    """MXCSR; right before it is what the engine's arithmetic knows of it: tininess, rounding, flags, ..."""
    at = state.find(struct.pack("<I", _MXCSR_MAGIC))
    if at < 8 or state[at + _SSE_ROUNDING] != _TOWARDS_ZERO or state[at + _SSE_FLAGS]:
        raise EngineStateError("MXCSR not found")
    return at


def _expect(what: str, state: bytes, at: int, form: str, value: int) -> None:
    (found,) = struct.unpack_from(form, state, at)
    if found != value:
        raise EngineStateError(f"{what} not where expected ({found:#x} instead of {value:#x})")


def read_memory(memory: int, address: int, length: int) -> bytes:
    """Bytes of this process through its /proc/self/mem, whose descriptor is `memory`; fewer or none if not mapped."""
    try:
        return os.pread(memory, length, address)
    except (OSError, OverflowError):
        return b""


def _find_cpu(memory: int, handle: ctypes.c_void_p, registers: bytes) -> tuple[int, int, int]:
    """CPUState is what a pointer of the handle points to; it holds a pointer to its own `env`, which begins with the
    registers.
    """
    assert handle.value is not None
    for (pointer,) in struct.iter_unpack("<Q", read_memory(memory, handle.value, 0x400)):
        if pointer & 7 or not 0x1000 <= pointer < 1 << 47:
            continue
        head = read_memory(memory, pointer, 0x200)
        if head[:8] != _ONE_CPU or head[_CFLAGS_NEXT_TB : _CFLAGS_NEXT_TB + 4] != _NO_CFLAGS:
            continue
        for index, (inner,) in enumerate(struct.iter_unpack("<Q", head)):
            if 0 < inner - pointer < 0x2_0000 and read_memory(memory, inner, len(registers)) == registers:
                return pointer, index * 8, inner
    raise EngineStateError("CPU state not found")


def _find_no_exit_request(library: ctypes.CDLL, handle: ctypes.c_void_p) -> int:
    """The engine's switch for its check after each memory access whether it has to stop.

    Such a stop lies inside an instruction that is half done; nothing here ever needs it. In the handle: int
    cpu_context_size; u64 next_pc; bool hook_insert, first_tb, no_exit_request, init_done.
    """
    assert handle.value is not None
    library.uc_context_size.restype = ctypes.c_size_t
    size = struct.pack("<I", library.uc_context_size(handle) - _CONTEXT_HEADER)
    image = ctypes.string_at(handle.value, 0x1400)
    at = image.find(size)
    while at >= 0:
        flags = image[at + 16 : at + 20]
        if at % 8 == 0 and flags in (b"\0\0\0\1", b"\0\1\0\1"):
            return handle.value + at + 18
        at = image.find(size, at + 1)
    raise EngineStateError("engine flags not found")
