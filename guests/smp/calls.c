/*
 * Interrupts between vcpus, and calls by means of them.
 *
 * A caller fills the one box of the vcpu that it calls, sends an event, and waits with upcalls on: two vcpus that call
 * each other serve each other meanwhile. A box belongs to one caller at a time, by its lock.
 */
#include "smp.h"

#include <pv/events.h>

static unsigned interrupt_ports[NR_VCPUS], call_ports[NR_VCPUS];
volatile unsigned interrupts[NR_VCPUS];

static struct box {
    struct spinlock lock;
    long (*function)(long argument);
    long argument, result;
    volatile bool done;
} boxes[NR_VCPUS];

static void interrupted(unsigned port, struct regs *regs)
{
    unsigned id = this_vcpu()->id;

    (void)regs;
    check("the interrupt's port", port, interrupt_ports[id]);
    interrupts[id]++;
}

static void called(unsigned port, struct regs *regs)
{
    unsigned id = this_vcpu()->id;
    struct box *box = &boxes[id];

    (void)regs;
    check("the call's port", port, call_ports[id]);
    box->result = box->function(box->argument);
    __asm__ volatile("" ::: "memory");
    box->done = true;
}

void calls_init(void)
{
    unsigned id = this_vcpu()->id;

    interrupt_ports[id] = event_bind_ipi(interrupted);
    call_ports[id] = event_bind_ipi(called);
    event_unmask(interrupt_ports[id]);
    event_unmask(call_ports[id]);
}

void interrupt(unsigned vcpu)
{
    event_send(interrupt_ports[vcpu]);
}

long call_on(unsigned vcpu, long (*function)(long argument), long argument)
{
    struct box *box = &boxes[vcpu];
    long result;

    spin_lock(&box->lock);
    box->function = function;
    box->argument = argument;
    box->done = false;
    event_send(call_ports[vcpu]);
    while (!box->done)
        relax();
    result = box->result;
    spin_unlock(&box->lock);
    return result;
}
