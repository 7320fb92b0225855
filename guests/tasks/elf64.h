/* The parts of the ELF format that the kernel (to load programs) and the debugger (to find symbols) read. */
#ifndef TASKS_ELF64_H
#define TASKS_ELF64_H

#include <stdint.h>

struct elf_header {
    char ident[16];
    uint16_t type, machine;
    uint32_t version;
    uint64_t entry, phoff, shoff;
    uint32_t flags;
    uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct elf_segment {
    uint32_t type, flags;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

struct elf_section {
    uint32_t name, type;
    uint64_t flags, addr, offset, size;
    uint32_t link, info;
    uint64_t addralign, entsize;
};

struct elf_symbol {
    uint32_t name;
    uint8_t info, other;
    uint16_t shndx;
    uint64_t value, size;
};

enum { ELF_EXEC = 2, ELF_DYN = 3, ELF_X86_64 = 62, ELF_LOAD = 1, ELF_SYMTAB = 2 };
enum { ELF_EXECUTE = 1, ELF_WRITE = 2, ELF_READ = 4 };

/* Keys of the auxiliary vector, which a program finds behind its environment on the stack. */
enum { AT_NULL = 0, AT_PHDR = 3, AT_PHENT = 4, AT_PHNUM = 5, AT_PAGESZ = 6, AT_BASE = 7, AT_ENTRY = 9, AT_EXECFN = 31 };

#endif
