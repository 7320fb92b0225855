"""What a PV kernel says about itself: Xen's ELF notes, or the older `__xen_guest` string. Xen: libelf-dominfo.c.

Both forms say the same things, and each thing may be missing. Two defaults differ: without a word about it the offset
of p_paddr is 0 with notes and VIRT_BASE with the string; and the string gives the hypercall page as a page number,
counted from VIRT_BASE, where a note gives its address. What a kernel asks for and no PV domain can have is refused.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from xdbg.abi.elfnote import ELFNOTE_OWNER, ElfNote
from xdbg.abi.features import XenFeat

_HEADER: Final = struct.Struct("<III")
_ABI_VERSION: Final = "xen-3.0"
_MAX_NAME: Final = 64
"""Longer values are cut in messages."""

_IMPOSSIBLE_FEATURES: Final = (XenFeat.AUTO_TRANSLATED_PHYSMAP, XenFeat.SUPERVISOR_MODE_KERNEL)
"""A kernel that requires one of these is not for a PV64 domain."""

_NUMBERS: Final = {
    "VIRT_BASE": ElfNote.VIRT_BASE,
    "VIRT_ENTRY": ElfNote.ENTRY,
    "ELF_PADDR_OFFSET": ElfNote.PADDR_OFFSET,
    "INIT_P2M": ElfNote.INIT_P2M,
    "HYPERCALL_PAGE": ElfNote.HYPERCALL_PAGE,
}
"""Keys of the `__xen_guest` string and the notes that replaced them."""
_STRINGS: Final = {
    "LOADER": ElfNote.LOADER,
    "GUEST_OS": ElfNote.GUEST_OS,
    "GUEST_VER": ElfNote.GUEST_VERSION,
    "XEN_VER": ElfNote.XEN_VERSION,
    "FEATURES": ElfNote.FEATURES,
    "PAE": ElfNote.PAE_MODE,
}


class ImageError(Exception):
    """A kernel, or what comes with it, can't be made into a PV64 domain; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class BootParameters:
    """The kernel's wishes; None is what it did not say. Xen: struct elf_dom_parms. Addresses are vaddrs."""

    entry: int | None = None
    virt_base: int | None = None
    """Where pfn 0 is mapped."""
    paddr_offset: int | None = None
    """What p_paddr has in excess of the pseudo-physical address."""
    hypercall_page: int | None = None
    init_p2m: int | None = None
    """Where the p2m list is wanted, if outside the initial mapping."""
    mod_start_pfn: bool = False
    """The first module need not be mapped."""
    bsd_symtab: bool = False
    """The symbol table is wanted behind the kernel."""
    xen_version: str = ""
    guest_os: str = ""
    guest_version: str = ""
    loader: str = ""
    features: str = ""


def read_notes(data: memoryview | bytes) -> dict[int, bytes]:
    """The values of Xen's notes in a PT_NOTE segment or SHT_NOTE section, by type; a later one wins.

    Notes of other owners are skipped. Raises `ImageError` if a note reaches past the end.
    """
    notes: dict[int, bytes] = {}
    at = 0
    while at + _HEADER.size <= len(data):
        name_size, value_size, kind = _HEADER.unpack_from(data, at)
        name_at = at + _HEADER.size
        value_at = name_at + (name_size + 3 & ~3)
        at = value_at + (value_size + 3 & ~3)
        if value_at + value_size > len(data):
            raise ImageError("an ELF note reaches past the end of the notes")
        if bytes(data[name_at : name_at + name_size]).rstrip(b"\0") == ELFNOTE_OWNER:
            notes[kind] = bytes(data[value_at : value_at + value_size])
    return notes


def parameters_from_notes(notes: Mapping[int, bytes]) -> BootParameters:
    """What Xen's ELF notes say. Raises `ImageError` for a value that is no number, or a kernel of another kind."""

    def number(note: ElfNote) -> int | None:
        value = notes.get(note)
        if value is None:
            return None
        if len(value) not in (4, 8):
            raise ImageError(f"ELF note {note.name} has {len(value)} bytes; a number has 4 or 8")
        return int.from_bytes(value, "little")

    def text(note: ElfNote) -> str:
        return notes.get(note, b"").partition(b"\0")[0].decode("ascii", "backslashreplace")

    supported = number(ElfNote.SUPPORTED_FEATURES)
    features = text(ElfNote.FEATURES)
    if supported is not None:
        names = [feature.name.lower() for feature in XenFeat if supported >> feature & 1]
        features = "|".join(filter(None, [features, *names]))
    return _checked(
        BootParameters(
            entry=number(ElfNote.ENTRY),
            virt_base=number(ElfNote.VIRT_BASE),
            paddr_offset=number(ElfNote.PADDR_OFFSET),
            hypercall_page=number(ElfNote.HYPERCALL_PAGE),
            init_p2m=number(ElfNote.INIT_P2M),
            mod_start_pfn=bool(number(ElfNote.MOD_START_PFN)),
            bsd_symtab=text(ElfNote.BSD_SYMTAB) == "yes",
            xen_version=text(ElfNote.XEN_VERSION),
            guest_os=text(ElfNote.GUEST_OS),
            guest_version=text(ElfNote.GUEST_VERSION),
            loader=text(ElfNote.LOADER),
            features=features,
        )
    )


def parameters_from_guest_string(value: bytes) -> BootParameters:
    """What a `__xen_guest` section says: `NAME=VALUE` or `NAME`, separated by commas, up to a NUL.

    Numbers are as in C. Raises `ImageError` as `parameters_from_notes` does.
    """
    numbers: dict[ElfNote, int] = {}
    strings: dict[ElfNote, str] = {}
    bsd_symtab = False
    for item in value.partition(b"\0")[0].decode("ascii", "backslashreplace").split(","):
        key, _, setting = item.strip().partition("=")
        if key in _NUMBERS:
            numbers[_NUMBERS[key]] = _c_number(key, setting)
        elif key in _STRINGS:
            strings[_STRINGS[key]] = setting
        elif key == "BSD_SYMTAB":
            bsd_symtab = True
    virt_base = numbers.get(ElfNote.VIRT_BASE, 0)
    page_number = numbers.get(ElfNote.HYPERCALL_PAGE)
    return _checked(
        BootParameters(
            entry=numbers.get(ElfNote.ENTRY),
            virt_base=virt_base,
            paddr_offset=numbers.get(ElfNote.PADDR_OFFSET, virt_base),
            hypercall_page=None if page_number is None else (page_number << 12) + virt_base,
            init_p2m=numbers.get(ElfNote.INIT_P2M),
            bsd_symtab=bsd_symtab,
            xen_version=strings.get(ElfNote.XEN_VERSION, ""),
            guest_os=strings.get(ElfNote.GUEST_OS, ""),
            guest_version=strings.get(ElfNote.GUEST_VERSION, ""),
            loader=strings.get(ElfNote.LOADER, ""),
            features=strings.get(ElfNote.FEATURES, ""),
        )
    )


def _c_number(key: str, text: str) -> int:
    """A number as C's strtoull reads it with base 0: hexadecimal, octal or decimal."""
    try:
        value = int(text, 8) if text.startswith("0") and text.isdecimal() else int(text, 0)
    except ValueError:
        raise ImageError(f"__xen_guest: {key}={_shown(text)} is not a number") from None
    if not 0 <= value < 1 << 64:
        raise ImageError(f"__xen_guest: {key}={_shown(text)} does not fit in 64 bits")
    return value


def _checked(parameters: BootParameters) -> BootParameters:
    """The same parameters; raises `ImageError` if they are those of a kernel that no PV64 domain can run.

    Xen: elf_xen_note_check(), less its demand that version and loader be stated.
    """
    if parameters.xen_version and not parameters.xen_version.startswith(_ABI_VERSION):
        raise ImageError(f"the kernel is made for the ABI {_shown(parameters.xen_version)}, not {_ABI_VERSION}")
    loader, guest_os = parameters.loader, parameters.guest_os
    if loader and not loader.startswith("generic") and not guest_os.startswith("linux"):
        raise ImageError(f"the kernel wants the loader {_shown(loader)}; there is only 'generic'")
    required = {name[1:] for name in parameters.features.split("|") if name.startswith("!")}
    for feature in _IMPOSSIBLE_FEATURES:
        if feature.name.lower() in required:
            raise ImageError(f"the kernel requires {feature.name.lower()}, which a PV64 domain does not have")
    return parameters


def _shown(text: str) -> str:
    """A value from the image, fit for one line."""
    return repr(text if len(text) <= _MAX_NAME else text[:_MAX_NAME] + "...")
