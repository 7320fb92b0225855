"""Layouts of C structures out of a program's debug information (DWARF), so that no offset is written down by hand.

Reading DWARF is slow to start (0.1 s); whoever needs no structure never pays for it. Bit fields are not told apart: a
member is whole bytes.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from elftools.dwarf.die import DIE

_AGGREGATES: Final = frozenset({"DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_class_type"})
_QUALIFIERS: Final = frozenset({"DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_atomic_type"})
_POINTER_SIZE: Final = 8
_MAX_DEPTH: Final = 8
"""Structures in structures; deeper ones are members like any other."""
_MAX_CHAIN: Final = 64
"""Typedefs and qualifiers one behind the other."""


class NoStructureError(Exception):
    """The program has no debug information about a type."""


@dataclass(frozen=True, slots=True)
class Field:
    """A member: `size` bytes in all at `offset`, an array of `count` elements (1 if it is none)."""

    offset: int
    size: int
    count: int = 1

    @property
    def element_size(self) -> int:
        """Bytes of one element."""
        return self.size // self.count if self.count else 0


@dataclass(frozen=True, slots=True)
class StructLayout:
    """A structure of `size` bytes; members of an embedded structure have dotted names, "regs.rip"."""

    name: str
    size: int
    fields: dict[str, Field]

    def value(self, data: bytes, field: str, *, signed: bool = False) -> int:
        """The number in a member, `data` being the structure's bytes. KeyError for an unknown member."""
        place = self.fields[field]
        return int.from_bytes(data[place.offset : place.offset + place.size], "little", signed=signed)

    def raw(self, data: bytes, field: str) -> bytes:
        """The bytes of a member."""
        place = self.fields[field]
        return data[place.offset : place.offset + place.size]

    def text(self, data: bytes, field: str) -> str:
        """The string in a character array, up to its NUL."""
        return self.raw(data, field).partition(b"\0")[0].decode("utf-8", "replace")


class Structures:
    """The types of one program, found when they are asked for."""

    def __init__(self, dwarf: Any) -> None:
        self._top: dict[tuple[str, str], DIE] = {}
        for unit in dwarf.iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                name = _name(die)
                if name and "DW_AT_declaration" not in die.attributes:
                    self._top.setdefault((die.tag, name), die)

    @classmethod
    def from_elf(cls, data: bytes) -> Self:
        """The types in an ELF file; raises `NoStructureError` if it has no DWARF, or damaged DWARF."""
        from elftools.elf.elffile import ELFFile  # noqa: PLC0415 - the import takes longer than a small guest's boot

        with _damage_reported():
            elf = ELFFile(io.BytesIO(data))
            if not elf.has_dwarf_info(strict=True):
                raise NoStructureError("no debug information")
            return cls(elf.get_dwarf_info())

    def struct_layout(self, name: str) -> StructLayout:
        """The layout of `struct name` or of the structure behind a typedef; raises `NoStructureError`."""
        with _damage_reported():
            for tag in ("DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_typedef"):
                die = _unqualified(self._top.get((tag, name)))
                if die is not None and die.tag in _AGGREGATES:
                    return StructLayout(name, _size(die), dict(_members(die, "", 0, 0)))
        raise NoStructureError(f"no struct {name} in the debug information")

    def enum_values(self, name: str) -> dict[str, int]:
        """The constants of `enum name`, or of the enumeration behind a typedef; raises `NoStructureError`."""
        with _damage_reported():
            for tag in ("DW_TAG_enumeration_type", "DW_TAG_typedef"):
                die = _unqualified(self._top.get((tag, name)))
                if die is not None and die.tag == "DW_TAG_enumeration_type":
                    return {
                        _name(child): int(child.attributes["DW_AT_const_value"].value) for child in die.iter_children()
                    }
        raise NoStructureError(f"no enum {name} in the debug information")


@contextmanager
def _damage_reported() -> Iterator[None]:
    """Damaged DWARF makes its reader fail in any way it likes; here it is `NoStructureError`."""
    try:
        yield
    except NoStructureError:
        raise
    except Exception as error:
        raise NoStructureError(f"unreadable debug information ({type(error).__name__})") from error


def _name(die: "DIE") -> str:
    attribute = die.attributes.get("DW_AT_name")
    return attribute.value.decode("utf-8", "replace") if attribute is not None else ""


def _type_of(die: "DIE") -> "DIE | None":
    return die.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in die.attributes else None


def _unqualified(die: "DIE | None") -> "DIE | None":
    """The type behind typedefs and qualifiers; None is void."""
    for _ in range(_MAX_CHAIN):
        if die is None or die.tag not in _QUALIFIERS:
            return die
        die = _type_of(die)
    raise NoStructureError("a type that is defined by itself")


def _array_count(die: "DIE") -> int:
    count = 1
    for child in die.iter_children():
        if child.tag == "DW_TAG_subrange_type":
            if "DW_AT_count" in child.attributes:
                count *= int(child.attributes["DW_AT_count"].value)
            elif "DW_AT_upper_bound" in child.attributes:
                count *= int(child.attributes["DW_AT_upper_bound"].value) + 1
            else:
                count = 0
    return count


def _size(die: "DIE | None") -> int:
    """sizeof, in bytes; 0 for void and for types without a size."""
    die = _unqualified(die)
    if die is None:
        return 0
    if "DW_AT_byte_size" in die.attributes:
        return int(die.attributes["DW_AT_byte_size"].value)
    if die.tag == "DW_TAG_array_type":
        return _array_count(die) * _size(_type_of(die))
    return _POINTER_SIZE if die.tag == "DW_TAG_pointer_type" else 0


def _members(struct: "DIE", prefix: str, base: int, depth: int) -> Iterator[tuple[str, Field]]:
    """Each member with its full name; those of an unnamed member belong to the outer structure, as in C."""
    for child in struct.iter_children():
        if child.tag != "DW_TAG_member":
            continue
        location = child.attributes.get("DW_AT_data_member_location")
        offset = base + (location.value if location is not None and isinstance(location.value, int) else 0)
        kind = _unqualified(_type_of(child))
        name = _name(child)
        count = _array_count(kind) if kind is not None and kind.tag == "DW_TAG_array_type" else 1
        if name:
            yield prefix + name, Field(offset, _size(kind), count)
        if kind is not None and kind.tag in _AGGREGATES and depth < _MAX_DEPTH:
            yield from _members(kind, f"{prefix}{name}." if name else prefix, offset, depth + 1)
