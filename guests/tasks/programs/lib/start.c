/*
 * A program's way to main(). A position-independent one first adds its load address to each pointer in its data: there
 * is no dynamic linker to do it, and nothing here may use such a pointer before.
 */
#include "program.h"

struct dynamic {
    long tag;
    unsigned long value;
};

struct relocation {
    unsigned long offset, info;
    long addend;
};

enum { DYNAMIC_END = 0, DYNAMIC_RELA = 7, DYNAMIC_RELA_SIZE = 8, RELATIVE = 8 };

extern char __ehdr_start[] __attribute__((visibility("hidden"))); /* the ELF header: at the load address */

_Noreturn void start(long *stack, const struct dynamic *dynamic);

static void relocate(const struct dynamic *d)
{
    const struct relocation *table = (const struct relocation *)__ehdr_start;
    unsigned long size = 0;

    for (; d && d->tag != DYNAMIC_END; d++) {
        if (d->tag == DYNAMIC_RELA)
            table = (const struct relocation *)(__ehdr_start + d->value);
        if (d->tag == DYNAMIC_RELA_SIZE)
            size = d->value;
    }
    for (; size; size -= sizeof(*table), table++)
        if ((unsigned)table->info == RELATIVE)
            *(char **)(__ehdr_start + table->offset) = __ehdr_start + table->addend;
}

void start(long *stack, const struct dynamic *dynamic)
{
    relocate(dynamic);
    exit(main((int)stack[0], (char **)&stack[1]));
}
