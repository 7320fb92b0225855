/*
 * fault [KIND]: writes to address 0, three calls deep, and dies of signal 11. With a KIND it does what the function of
 * that name does, and dies of that.
 */
#include "program.h"

static void __attribute__((noinline)) store(int *where, int what)
{
    *(volatile int *)where = what;
}

static int __attribute__((noinline)) find_and_store(int key)
{
    int *found = (int *)(unsigned long)(key & 0);

    store(found, key);
    return key;
}

static int divide(int by)
{
    return 100 / by;
}

static void illegal(void)
{
    __asm__ volatile("ud2");
}

/* Program text is mapped, but nobody may write to it. */
static void write_text(void)
{
    store((int *)(void *)write_text, 1);
}

/* No virtual address at all: not a page fault, and the processor does not say where. */
static void not_canonical(void)
{
    store((int *)0x8000000000000000ul, 1);
}

static void breakpoint(void)
{
    __asm__ volatile("int3");
}

static void run(const char *kind)
{
    if (!strcmp(kind, "divide"))
        divide(0);
    if (!strcmp(kind, "illegal"))
        illegal();
    if (!strcmp(kind, "write_text"))
        write_text();
    if (!strcmp(kind, "not_canonical"))
        not_canonical();
    if (!strcmp(kind, "breakpoint"))
        breakpoint();
}

int main(int argc, char *argv[])
{
    if (argc > 1)
        run(argv[1]);
    return find_and_store(40 + argc);
}
