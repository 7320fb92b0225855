"""The registers that gdb knows, by number: derived from features/*.xml, which gdb itself is sent.

The `g` block is gdb's default for x86-64 GNU/Linux, exactly 560 bytes: core (integer registers, rip, eflags, segment
selectors) 164, x87 112, xmm and mxcsr 260, orig_rax 8, fs_base and gs_base 16. It must not grow: gdb falls back to the
default for a process whose description it did not read, and refuses a longer block. The registers behind it are reached
one at a time (`p`, `P`), which gdb does by itself.

All values are little-endian. GDB manual: "Target Description Format", "i386 Features".
"""

from dataclasses import dataclass
from errno import ENOENT
from functools import cache
from importlib.resources import files
from typing import Final
from xml.etree.ElementTree import fromstring

from xdbg.rsp.target import TargetError


@dataclass(frozen=True, slots=True)
class Register:
    """One register. `offset` is its place in the `g` block, None when it is not part of it."""

    name: str
    number: int
    bitsize: int
    offset: int | None

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return self.bitsize // 8


_G_FEATURES: Final = ("core", "sse", "linux", "segments")
_FEATURES: Final = (*_G_FEATURES, "system", "xen")


def _document(annex: str) -> str:
    return files(__package__).joinpath("features", annex).read_text()


def _registers() -> tuple[Register, ...]:
    registers: list[Register] = []
    offset = 0
    for feature in _FEATURES:
        for element in fromstring(_document(f"{feature}.xml")).iter("reg"):  # noqa: S314 - a file of this package
            bitsize = int(element.attrib["bitsize"])
            place = offset if feature in _G_FEATURES else None
            registers.append(Register(element.attrib["name"], len(registers), bitsize, place))
            offset += bitsize // 8
    return tuple(registers)


REGISTERS: Final = _registers()
"""All registers; the index is the number."""

BY_NAME: Final = {register.name: register for register in REGISTERS}

G_REGISTERS: Final = tuple(register for register in REGISTERS if register.offset is not None)
G_SIZE: Final = sum(register.size for register in G_REGISTERS)
assert G_SIZE == 560

RBP: Final = BY_NAME["rbp"].number
RSP: Final = BY_NAME["rsp"].number
RIP: Final = BY_NAME["rip"].number


@cache
def description(annex: str = "target.xml") -> bytes:
    """A document of the target description. TargetError(ENOENT) for an unknown one.

    The features are already in target.xml, so that a client reads all of them in one transfer.
    """
    if annex == "target.xml":
        text = _document("target.xml")
        for feature in _FEATURES:
            text = text.replace(f'  <xi:include href="{feature}.xml"/>\n', _document(f"{feature}.xml"))
        return text.encode()
    if annex.removesuffix(".xml") in _FEATURES and annex.endswith(".xml"):
        return _document(annex).encode()
    raise TargetError(ENOENT, f"no such description: {annex}")
