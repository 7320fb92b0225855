/* What all vcpus do together: each step is executed by all of them at the same time. */
#include "smp.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/time.h>

#define ROUNDS 200

static struct spinlock lock;
static volatile unsigned long guarded, plain;
static unsigned long atomic;
static volatile unsigned ticks[NR_VCPUS];
static char window[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static void *frames[2];
static volatile bool is_away;

static bool is_first(void)
{
    return this_vcpu()->id == 0;
}

/* What the lock guards is read, used and written in three instructions: two in it at once would lose one. */
static void contended_lock(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned long value;

        spin_lock(&lock);
        value = guarded;
        for (unsigned wait = 0; wait < 50; wait++)
            relax();
        guarded = value + 1;
        spin_unlock(&lock);
    }
    meet();
    if (is_first()) {
        check("counted under the lock", guarded, (long)ROUNDS * nr_vcpus);
        check("tickets", lock.next, (long)ROUNDS * nr_vcpus);
    }
}

static void locked_instructions(void)
{
    for (unsigned i = 0; i < ROUNDS * 50; i++) {
        unsigned long seen = atomic;

        __asm__ volatile("lock incq %0" : "+m"(plain));
        while (!__atomic_compare_exchange_n(&atomic, &seen, seen + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
    }
    meet();
    if (is_first()) {
        check("counted by lock inc", plain, (long)ROUNDS * 50 * nr_vcpus);
        check("counted by lock cmpxchg", atomic, (long)ROUNDS * 50 * nr_vcpus);
    }
}

/* An event that is sent before the last one was taken is the same event: so wait for each. */
static void interrupts_in_a_ring(void)
{
    unsigned id = this_vcpu()->id, next = (id + 1) % nr_vcpus;

    for (unsigned round = 1; round <= ROUNDS / 4; round++) {
        interrupt(next);
        while (interrupts[id] < round)
            relax();
        meet();
    }
    check("interrupts", interrupts[id], ROUNDS / 4);
}

/* Blocked vcpus are woken by an interrupt, one after the other. */
static void interrupts_wake(void)
{
    unsigned id = this_vcpu()->id, before = interrupts[id];

    meet();
    if (!is_first()) {
        while (interrupts[id] == before) {
            upcalls_off();
            if (interrupts[id] == before)
                block();
            upcalls_on();
        }
        if (id + 1 < nr_vcpus)
            interrupt(id + 1);
    } else if (nr_vcpus > 1) {
        interrupt(1);
    }
    meet();
    check("one interrupt", interrupts[id] - before, !is_first());
}

static long whoami(long salt)
{
    return this_vcpu()->id * 1000 + salt;
}

static void cross_calls(void)
{
    for (unsigned round = 0; round < 5; round++)
        for (unsigned id = 0; id < nr_vcpus; id++)
            check("a call's result", call_on(id, whoami, round), id * 1000 + round);
}

static void ticked(unsigned port, struct regs *regs)
{
    (void)port;
    (void)regs;
    ticks[this_vcpu()->id]++;
}

/* The higher its number, the sooner a vcpu's time comes. */
static void timers(void)
{
    unsigned id = this_vcpu()->id;
    uint64_t deadline = now_ns() + (nr_vcpus - id) * NS_PER_MS;
    struct vcpu_set_singleshot_timer timer = {.timeout_abs_ns = deadline};

    event_unmask(event_bind_virq(VIRQ_TIMER, ticked));
    check("its own timer", hypercall_vcpu_op(VCPUOP_set_singleshot_timer, id, &timer), 0);
    if (nr_vcpus > 1)
        check("another's timer", hypercall_vcpu_op(VCPUOP_set_singleshot_timer, (id + 1) % nr_vcpus, &timer), -XEN_EINVAL);
    while (!ticks[id]) {
        upcalls_off();
        if (!ticks[id])
            block();
        upcalls_on();
    }
    check("not before its time", now_ns() >= deadline, 1);
    if (id)
        check("before the first vcpu's", ticks[0], 0);
    meet();
    check("one tick", ticks[id], 1);
}

/* Each vcpu has seen the page before the first changes what it is. */
static void shared_page_tables(void)
{
    if (is_first())
        for (unsigned i = 0; i < 2; i++) {
            frames[i] = page_alloc();
            *(unsigned long *)frames[i] = 1000 + i;
        }
    for (unsigned i = 0; i < 6; i++) {
        if (is_first())
            check("remap", hypercall_update_va_mapping((unsigned long)window,
                                                       va_to_mfn(frames[i % 2]) * PAGE_SIZE | PTE_PRESENT | PTE_ACCESSED,
                                                       UVMF_INVLPG | UVMF_ALL),
                  0);
        meet();
        check("what is in the page", *(volatile unsigned long *)window, 1000 + i % 2);
        meet();
    }
}

/* The last vcpu goes down and is taken up again; it goes on where it was. */
static void down_and_up(void)
{
    unsigned last = nr_vcpus - 1;
    struct vcpu_runstate_info state;

    if (nr_vcpus > 1 && this_vcpu()->id == last) {
        is_away = true;
        vcpu_down();
        check("itself again", this_vcpu()->id, last);
        is_away = false;
    } else if (nr_vcpus > 1 && is_first()) {
        while (vcpu_is_up(last))
            relax();
        check("it is away", is_away, true);
        check("its state", hypercall_vcpu_op(VCPUOP_get_runstate_info, last, &state), 0);
        check("it is offline", state.state, RUNSTATE_offline);
        interrupt(last); /* nobody takes it, for now */
        vcpu_up(last);
        check("it is up", vcpu_is_up(last), true);
        while (is_away)
            relax();
    }
    meet();
}

static void refusals(void)
{
    static struct vcpu_guest_context context;

    if (!is_first())
        return;
    check("a vcpu that is not there", hypercall_vcpu_op(VCPUOP_is_up, nr_vcpus, NULL), -XEN_ENOENT);
    check("up", hypercall_vcpu_op(VCPUOP_up, nr_vcpus, NULL), -XEN_ENOENT);
    check("started twice", hypercall_vcpu_op(VCPUOP_initialise, nr_vcpus - 1, &context), -XEN_EEXIST);
    check("up twice", hypercall_vcpu_op(VCPUOP_up, nr_vcpus - 1, NULL), 0);
}

const struct step steps[] = {
    {"a ticket lock", contended_lock},
    {"locked instructions", locked_instructions},
    {"interrupts in a ring", interrupts_in_a_ring},
    {"interrupts wake blocked vcpus", interrupts_wake},
    {"calls to each other", cross_calls},
    {"a timer each", timers},
    {"page tables that one changes", shared_page_tables},
    {"down and up again", down_and_up},
    {"what Xen refuses", refusals},
};
const unsigned nr_steps = sizeof(steps) / sizeof(steps[0]);
