/*
 * smp: all vcpus of the domain run together: a contended lock, interrupts and calls to each other, timers.
 *
 * The first vcpu starts the others, as many as the domain has, each with a stack and data of its own. Then all execute
 * the same steps at the same time, and meet between two of them. One goes down and comes back.
 *
 * Vcpus: 4
 * Expect: exit 0
 * Expect-output: 4 vcpus are up
 * Expect-output: ok    a ticket lock
 * Expect-output: ok    down and up again
 * Expect-output: PASS smp
 */
#include "smp.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/guest.h>

unsigned nr_vcpus;

static unsigned wrong, arrived;
static volatile unsigned meetings;
static struct spinlock console_lock;

void check(const char *what, long got, long expected)
{
    if (got == expected)
        return;
    spin_lock(&console_lock);
    printk("    vcpu %u: %s: %lx, not %lx\n", this_vcpu()->id, what, got, expected);
    wrong++;
    spin_unlock(&console_lock);
}

void meet(void)
{
    unsigned before = meetings;

    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == nr_vcpus) {
        arrived = 0;
        meetings = before + 1;
    }
    while (meetings == before)
        relax();
}

/* What every vcpu executes. */
static void work(void)
{
    calls_init();
    upcalls_on();
    meet();
    if (this_vcpu()->id == 0)
        printk("%u vcpus are up\n", nr_vcpus);
    for (unsigned i = 0; i < nr_steps; i++) {
        unsigned wrong_before = wrong;

        meet();
        steps[i].run();
        meet();
        if (this_vcpu()->id == 0)
            printk("%s %s\n", wrong == wrong_before ? "ok   " : "WRONG", steps[i].text);
    }
    meet();
}

void main(const char *command_line)
{
    (void)command_line;
    nr_vcpus = vcpus_count();
    for (unsigned id = 1; id < nr_vcpus; id++)
        vcpu_start(id, work);
    work();
    for (unsigned id = 1; id < nr_vcpus; id++)
        while (vcpu_is_up(id))
            relax();
    if (wrong)
        fail("smp: %u wrong", wrong);
    printk("PASS smp\n");
}
