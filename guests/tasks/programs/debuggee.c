/*
 * debuggee [free]: calls step() eight times, once a debugger has set `go`; with "free" it does not wait for one.
 *
 * Ends with what step() adds up, whether it was debugged or not. Link: pie
 */
#include "program.h"

volatile int go;
int steps;
long sum;

static void __attribute__((noinline)) step(int n)
{
    long before = sum;

    sum = before + 2 * n + 1;
    steps++;
}

int main(int argc, char *argv[])
{
    if (argc > 1 && !strcmp(argv[1], "free"))
        go = 1;
    while (!go)
        sleep(1);
    for (int n = 0; n < 8; n++)
        step(n);
    return (int)sum;
}
