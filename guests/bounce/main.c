/*
 * bounce: executes int3 in kernel mode over and over, as often as the command line says, and counts its handler's calls.
 *
 * Each turn is the whole way of a trap: through Xen's IDT, trap_bounce, the bounce frame, the handler, and back by the
 * iret hypercall. Nothing else happens, so the time of a long run tells what a trap costs.
 *
 * Expect: exit 0
 * Expect-output: PASS bounce: 1000 traps
 */
#include <pv/console.h>
#include <pv/guest.h>
#include <pv/traps.h>

static uint64_t handled;

static void count(struct regs *regs)
{
    (void)regs;
    handled++;
}

static uint64_t number(const char *text)
{
    uint64_t value = 0;

    while (*text >= '0' && *text <= '9')
        value = value * 10 + (uint64_t)(*text++ - '0');
    return value;
}

void main(const char *command_line)
{
    uint64_t turns = number(command_line);

    if (!turns)
        turns = 1000;
    trap_set(VECTOR_BP, GATE_DPL3, count);
    for (uint64_t turn = 0; turn < turns; turn++)
        __asm__ volatile("int3" ::: "memory");
    if (handled != turns)
        fail("%lu traps of %lu reached the handler", handled, turns);
    printk("PASS bounce: %lu traps\n", handled);
}
