/*
 * A malloc() for debuggers: gdb calls it to put a string or an array of its user into the guest, as in
 * `print printk("hello\n")`. No program here calls it, and nothing is ever freed.
 */
#include <stddef.h>

void *malloc(unsigned long size);

void *malloc(unsigned long size)
{
    static char heap[1024] __attribute__((aligned(16)));
    static unsigned long used;
    char *memory = heap + used;

    size = (size + 15) & ~15UL;
    if (size > sizeof(heap) - used)
        return NULL;
    used += size;
    return memory;
}
