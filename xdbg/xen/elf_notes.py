"""What a PV kernel says about itself: Xen's ELF notes, or the older `__xen_guest` string. Xen: libelf-dominfo.c.

Both forms say the same things, and each thing may be missing. Of a note that comes twice the later one counts, but
features add up. Two defaults differ: without a word about it the offset of p_paddr is 0 with notes and VIRT_BASE with
the string; and the string gives the hypercall page as a page number, counted from VIRT_BASE, where a note gives its
address. INIT_P2M and MOD_START_PFN exist as notes only. PAE_MODE and HV_START_LOW are about 32-bit kernels; nothing
here depends on L1_MFN_VALID and SUSPEND_CANCEL.

What a kernel asks for and no PV domain can have is refused. Xen's own tools refuse a kernel that does not state version
and loader, too; here those may be missing, like all else, unless it is PVH that the kernel is made for.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from xdbg.abi.elfnote import ELFNOTE_OWNER, ElfNote
from xdbg.abi.features import XenFeat

_HEADER: Final = struct.Struct("<III")
_ABI_VERSION: Final = "xen-3.0"
_U64: Final = (1 << 64) - 1
_NUMBER_SIZES: Final = (1, 2, 4, 8)
"""Bytes of a note that is a number; with any other size it is 0. Xen: elf_note_numeric()."""
_MAX_SHOWN: Final = 64
"""Longer values are cut in messages."""
_MAX_FEATURE: Final = 63
_MAX_KEY: Final = 31
_MAX_VALUE: Final = 127
"""Characters that count of a feature's name, and of a key and its value in the older string; more are another item."""
_FEATURE: Final = re.compile(rf"([^|]{{1,{_MAX_FEATURE}}})\|?")
_KEY: Final = re.compile(rf"[^,=]{{0,{_MAX_KEY}}}")
_VALUE: Final = re.compile(rf"=([^,]{{0,{_MAX_VALUE}}})")
_C_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))", re.ASCII)

_NAMED_FEATURES: Final = {
    feature.name.lower(): feature
    for feature in (
        XenFeat.WRITABLE_PAGE_TABLES,
        XenFeat.WRITABLE_DESCRIPTOR_TABLES,
        XenFeat.AUTO_TRANSLATED_PHYSMAP,
        XenFeat.SUPERVISOR_MODE_KERNEL,
        XenFeat.PAE_PGDIR_ABOVE_4GB,
        XenFeat.HVM_CALLBACK_VECTOR,
        XenFeat.DOM0,
    )
}
"""What may stand in a list of features. Xen: elf_xen_feature_names."""
_IMPOSSIBLE_FEATURES: Final = (XenFeat.AUTO_TRANSLATED_PHYSMAP, XenFeat.SUPERVISOR_MODE_KERNEL, XenFeat.DOM0)
"""A kernel that requires one of these is not for an unprivileged PV64 domain."""


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
    phys32_entry: bool = False
    """The kernel can be started by PVH, too."""
    xen_version: str = ""
    guest_os: str = ""
    guest_version: str = ""
    loader: str = ""
    supported: int = 0
    """Features that the kernel can do with, a bit each by `XenFeat`; the required ones among them."""
    required: int = 0


Note = tuple[int, bytes]
"""Type and value of one of Xen's notes."""


def read_notes(data: memoryview | bytes) -> list[Note]:
    """Xen's notes in a PT_NOTE segment or SHT_NOTE section, in their order.

    Notes of other owners are skipped. Raises `ImageError` if a note reaches past the end.
    """
    notes = []
    owner = ELFNOTE_OWNER + b"\0"
    at = 0
    while at + _HEADER.size <= len(data):
        name_size, value_size, kind = _HEADER.unpack_from(data, at)
        name_at = at + _HEADER.size
        value_at = name_at + (name_size + 3 & ~3)
        at = value_at + (value_size + 3 & ~3)
        if value_at + value_size > len(data):
            raise ImageError("an ELF note reaches past the end of the notes")
        if data[name_at : name_at + len(owner)] == owner:
            notes.append((kind, bytes(data[value_at : value_at + value_size])))
    return notes


def parameters_from_notes(notes: Sequence[Note]) -> BootParameters:
    """What Xen's ELF notes say. Raises `ImageError` for a kernel of another kind. Xen: elf_xen_parse_note()."""
    values = dict(notes)

    def number(note: ElfNote) -> int | None:
        return None if note not in values else _note_number(values[note])

    def text(note: ElfNote) -> str:
        return _text(values.get(note, b""))

    supported = required = 0
    for kind, value in notes:
        if kind == ElfNote.FEATURES:
            more, needed = parse_features(_text(value))
            supported |= more
            required |= needed
        elif kind == ElfNote.SUPPORTED_FEATURES and not len(value) % 4:
            supported |= int.from_bytes(value[:4], "little")
    return _checked(
        BootParameters(
            entry=number(ElfNote.ENTRY),
            virt_base=number(ElfNote.VIRT_BASE),
            paddr_offset=number(ElfNote.PADDR_OFFSET),
            hypercall_page=number(ElfNote.HYPERCALL_PAGE),
            init_p2m=number(ElfNote.INIT_P2M),
            mod_start_pfn=bool(number(ElfNote.MOD_START_PFN)),
            bsd_symtab=any(kind == ElfNote.BSD_SYMTAB and _text(value) == "yes" for kind, value in notes),
            phys32_entry=ElfNote.PHYS32_ENTRY in values,
            xen_version=text(ElfNote.XEN_VERSION),
            guest_os=text(ElfNote.GUEST_OS),
            guest_version=text(ElfNote.GUEST_VERSION),
            loader=text(ElfNote.LOADER),
            supported=supported,
            required=required,
        )
    )


def parameters_from_guest_string(value: bytes) -> BootParameters:
    """What a `__xen_guest` section says: `KEY=VALUE` or `KEY`, separated by commas, up to a NUL.

    Numbers are read as C's strtoull does: what follows the digits does not count, and without any it is 0.
    Raises `ImageError` as `parameters_from_notes` does. Xen: elf_xen_parse_guest_info().
    """
    settings: dict[str, str] = {}
    supported = required = 0
    for key, setting in _guest_string_items(_text(value)):
        settings[key] = setting
        if key == "FEATURES":
            more, needed = parse_features(setting)
            supported |= more
            required |= needed

    def number(key: str) -> int | None:
        return None if key not in settings else _c_number(settings[key])

    virt_base = number("VIRT_BASE")
    page_number = number("HYPERCALL_PAGE")
    return _checked(
        BootParameters(
            entry=number("VIRT_ENTRY"),
            virt_base=virt_base,
            paddr_offset=number("ELF_PADDR_OFFSET") if "ELF_PADDR_OFFSET" in settings else virt_base,
            hypercall_page=None if page_number is None else (page_number << 12) + (virt_base or 0) & _U64,
            bsd_symtab="BSD_SYMTAB" in settings,
            xen_version=settings.get("XEN_VER", ""),
            guest_os=settings.get("GUEST_OS", ""),
            guest_version=settings.get("GUEST_VER", ""),
            loader=settings.get("LOADER", ""),
            supported=supported,
            required=required,
        )
    )


def parse_features(text: str) -> tuple[int, int]:
    """(supported, required) as bits by `XenFeat`, of a list such as `!writable_page_tables|pae_pgdir_above_4gb`.

    A `!` says "required". A name that Xen does not know is passed over, or refused by `ImageError` if it is required.
    Xen: elf_xen_parse_features().
    """
    supported = required = 0
    for name in _FEATURE.findall(text):
        feature = _NAMED_FEATURES.get(name.removeprefix("!"))
        if feature is not None:
            supported |= 1 << feature
            required |= name.startswith("!") << feature
        elif name.startswith("!"):
            raise ImageError(f"the kernel requires the feature {_shown(name[1:])}, which Xen does not know")
    return supported, required


def _guest_string_items(text: str) -> list[tuple[str, str]]:
    """(key, value) of each item; the value is empty without `=`. A long key or value is cut and the rest an item."""
    items = []
    at = 0
    while at < len(text):
        found = _KEY.match(text, at)
        assert found is not None
        key, value, at = found[0], "", found.end()
        if len(key) < _MAX_KEY:
            found = _VALUE.match(text, at)
            if found is not None:
                value, at = found[1], found.end()
            at += len(value) < _MAX_VALUE  # the comma
        items.append((key, value))
    return items


def _c_number(text: str) -> int:
    """A number as C's strtoull reads it with base 0: hexadecimal, octal or decimal; the largest if it is too large."""
    found = _C_NUMBER.match(text)
    if found is None:
        return 0
    sign, hexadecimal, octal, decimal = found.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    if value > _U64:
        return _U64
    return -value & _U64 if sign == "-" else value


def _note_number(value: bytes) -> int:
    return int.from_bytes(value, "little") if len(value) in _NUMBER_SIZES else 0


def _text(value: bytes) -> str:
    """A C string."""
    return value.partition(b"\0")[0].decode("latin-1")


def _checked(parameters: BootParameters) -> BootParameters:
    """The same parameters; raises `ImageError` if they are those of a kernel that no PV64 domain can run.

    Xen: elf_xen_note_check(), xc_dom_parse_elf_kernel().
    """
    version, loader, guest_os = parameters.xen_version, parameters.loader, parameters.guest_os
    if parameters.phys32_entry and not version:
        raise ImageError("the kernel is made for PVH, not for PV (it has a PHYS32_ENTRY note but no XEN_VERSION)")
    if version and not version.startswith(_ABI_VERSION):
        raise ImageError(f"the kernel is made for the ABI {_shown(version)}, not {_ABI_VERSION}")
    if loader and not loader.startswith("generic") and not guest_os.startswith("linux"):
        raise ImageError(f"the kernel wants the loader {_shown(loader)}; there is only 'generic'")
    for feature in _IMPOSSIBLE_FEATURES:
        if parameters.required >> feature & 1:
            raise ImageError(f"the kernel requires {feature.name.lower()}, which a PV64 domain does not have")
    return parameters


def _shown(text: str) -> str:
    """A value from the image, fit for one line."""
    return ascii(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
