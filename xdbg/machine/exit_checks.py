"""Takes the engine's own checks whether it has to stop out of the code that it translates."""

import ctypes
import os
import struct
from typing import Final

from .engine_state import read_memory

# Of the engine's handle and its TCGContext, about: looked for around here.
_TCG_CONTEXT: Final = 0x300
_HELPER_TABLE: Final = 0x98E0
_NODE_SIZE: Final = 24
_NO_READ_GLOBALS: Final = 1
_NO_SIDE_EFFECTS: Final = 4


class HelperInfo(ctypes.Structure):
    """TCGHelperInfo: a C function that translated code may call."""

    _fields_ = [
        ("function", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("flags", ctypes.c_uint32),
        ("sizemask", ctypes.c_uint32),
    ]


def drop_exit_checks(library: ctypes.CDLL, handle: ctypes.c_void_p) -> HelperInfo | None:
    """Make the engine leave out the check, at the start of each block, whether it has to stop.

    Nothing here needs it: hooks that stop leave the block themselves. It is a call in each block, and a quarter of the
    time of a short loop. The engine keeps what it knows of its helpers in a table of its own; there the helper is
    described anew, as one without side effects, and the translator drops calls of such. Only this engine is changed.
    The result is to be kept as long as the engine is. None: the table is not where it was sought; then code is slower,
    and as right.
    """
    target = ctypes.cast(library.helper_check_exit_request_x86_64, ctypes.c_void_p).value
    assert handle.value is not None
    assert target is not None
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for (context,) in struct.iter_unpack("<Q", read_memory(memory, handle.value + _TCG_CONTEXT - 32, 72)):
            for (table,) in struct.iter_unpack("<Q", read_memory(memory, context + _HELPER_TABLE - 64, 136)):
                node = _helper_node(memory, table, target)
                if node:
                    return _without_side_effects(node)
    finally:
        os.close(memory)
    return None


def _helper_node(memory: int, table: int, function: int) -> int | None:
    """The address of the node {key, value, hash} for a function in a GHashTable {size, mod, mask, ..., nodes}."""
    head = read_memory(memory, table, 32)
    if len(head) < 32:
        return None
    size, _, mask, nr_nodes, _, nodes = struct.unpack("<5i4xQ", head)
    if not 64 <= size <= 1 << 16 or mask != size - 1 or not 0 < nr_nodes <= size:
        return None
    image = read_memory(memory, nodes, size * _NODE_SIZE)
    at = image.find(struct.pack("<Q", function))
    return nodes + at if at >= 0 and at % _NODE_SIZE == 0 else None


def _without_side_effects(node: int) -> HelperInfo | None:
    value = ctypes.c_uint64.from_address(node + 8)
    known = HelperInfo.from_address(value.value)
    if known.function != ctypes.c_uint64.from_address(node).value or known.flags:
        return None
    info = HelperInfo(known.function, known.name, _NO_READ_GLOBALS | _NO_SIDE_EFFECTS, known.sizemask)
    value.value = ctypes.addressof(info)
    return info
