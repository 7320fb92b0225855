"""The symbol table that BSD kernels find behind their image (note BSD_SYMTAB). Xen: elf_load_bsdsyms().

    u32 size        of all that follows
    ELF header      with three section headers and no program headers
    section 0       empty
    section 1       .symtab, sh_link 2
    section 2       .strtab
    the symbols, the strings

Offsets in the headers count from the ELF header, each part starts at a multiple of 8 from the start of `size`.
"""

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .elf_image import ElfSection

_EHDR_SIZE: Final = 64
_SHDR_SIZE: Final = 64
_SIZE_FIELD: Final = struct.Struct("<I")
_HEADERS: Final = _SIZE_FIELD.size + _EHDR_SIZE + 3 * _SHDR_SIZE
_STRTAB_INDEX: Final = 2
_SH_OFFSET: Final = 24
_SH_LINK: Final = 40


def build_bsd_symtab(elf: bytes, symtab: "ElfSection", strtab: "ElfSection") -> bytes:
    """The bytes to load at the first multiple of 8 behind the kernel; both sections lie inside `elf`."""
    symtab_at = _align(_HEADERS)
    strtab_at = _align(symtab_at + symtab.size)
    end = _align(strtab_at + strtab.size)
    blob = bytearray(end)
    origin = _SIZE_FIELD.size
    _SIZE_FIELD.pack_into(blob, 0, end - origin)
    blob[origin : origin + _EHDR_SIZE] = elf[:_EHDR_SIZE]
    # e_phoff 0, e_shoff behind the header; no program headers, three sections, no section of names.
    struct.pack_into("<QQ", blob, origin + 32, 0, _EHDR_SIZE)
    struct.pack_into("<HHHHHH", blob, origin + 52, _EHDR_SIZE, 0, 0, _SHDR_SIZE, 3, 0)
    for index, section, at in ((1, symtab, symtab_at), (_STRTAB_INDEX, strtab, strtab_at)):
        header = origin + _EHDR_SIZE + index * _SHDR_SIZE
        blob[header : header + _SHDR_SIZE] = section.header
        struct.pack_into("<Q", blob, header + _SH_OFFSET, at - origin)
        blob[at : at + section.size] = elf[section.offset : section.offset + section.size]
    struct.pack_into("<I", blob, origin + _EHDR_SIZE + _SHDR_SIZE + _SH_LINK, _STRTAB_INDEX)
    return bytes(blob)


def _align(offset: int) -> int:
    """The next multiple of 8."""
    return offset + 7 & ~7
