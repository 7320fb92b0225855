/* spin: never gives the processor back. Only the timer can take it, and only kill ends it. */
#include "program.h"

volatile unsigned long turns;

int main(int argc, char *argv[])
{
    (void)argc, (void)argv;
    for (;;)
        turns++;
}
