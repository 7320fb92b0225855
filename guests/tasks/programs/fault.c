/* fault: writes to address 0, three calls deep, and dies of signal 11. */
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

int main(int argc, char *argv[])
{
    (void)argv;
    return find_and_store(40 + argc);
}
