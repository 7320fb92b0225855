/* Who runs next: the tasks take turns, in the order of the table, for a slice of time each. */
#include "kernel.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/text.h>
#include <pv/time.h>

static uint64_t slice_end;
static uint64_t timer_set; /* the time that Xen's timer is set to, or 0 */
static bool slice_over;

/* The timer's event: sleepers whose time has come are ready, and the slice may be over. */
static void timer(unsigned port, struct regs *regs)
{
    uint64_t now = now_ns();

    (void)port, (void)regs;
    timer_set = 0;
    slice_over = now >= slice_end;
    for (struct task *task = tasks; task < tasks + NR_TASKS; task++)
        if (task->state == TASK_SLEEPING && task->wake_ns <= now)
            task->state = task == current ? TASK_RUNNING : TASK_READY;
}

void schedule_init(void)
{
    event_unmask(event_bind_virq(VIRQ_TIMER, timer));
}

void task_sleep(struct task *task, uint64_t wake_ns)
{
    task->state = TASK_SLEEPING;
    task->wake_ns = wake_ns;
}

void schedule_yield(void)
{
    slice_over = true;
}

static uint64_t first_wake(void)
{
    uint64_t first = UINT64_MAX;

    for (struct task *task = tasks; task < tasks + NR_TASKS; task++)
        if (task->state == TASK_SLEEPING && task->wake_ns < first)
            first = task->wake_ns;
    return first;
}

static void set_timer(uint64_t when)
{
    if (when == timer_set)
        return;
    timer_set = when;
    if (hypercall_set_timer_op(when))
        fail("set_timer_op refuses %lu", when);
}

/* current itself comes last, and not at all before its slice is over. */
static struct task *pick(void)
{
    struct task *last = current ? current : tasks;

    if (current && current->state == TASK_RUNNING) {
        if (!slice_over)
            return current;
        current->state = TASK_READY;
    }
    for (unsigned i = 1; i <= NR_TASKS; i++) {
        struct task *task = tasks + (last - tasks + i) % NR_TASKS;

        if (task->state == TASK_READY)
            return task;
    }
    return NULL;
}

/* A running task's floating point registers are in the processor only. */
void fpu_save(struct task *task)
{
    if (task && task == current)
        __asm__ volatile("fxsave64 %0" : "=m"(task->fpu));
}

/* Leaves the task's address space, so that it can be taken down. */
void schedule_leave(struct task *task)
{
    if (task != current)
        return;
    address_space_switch(NULL);
    current = NULL;
}

static void switch_to(struct task *next)
{
    fpu_save(current);
    address_space_switch(&next->space);
    __asm__ volatile("fxrstor64 %0" : : "m"(next->fpu));
    current = next;
}

/* The frame that the hypercall iret takes apart is a copy: the task's own registers stay as they are. */
static OBSERVED _Noreturn void enter_user_mode(struct task *next)
{
    struct regs frame;
    uint64_t wake;

    if (next != current)
        switch_to(next);
    if (next->state != TASK_RUNNING || slice_over) {
        next->state = TASK_RUNNING;
        slice_end = now_ns() + SLICE_NS;
        slice_over = false;
    }
    wake = first_wake();
    set_timer(wake < slice_end ? wake : slice_end);
    frame = next->regs;
    next->in_user = 1;
    regs_enter(&frame);
}

/* Nobody can run before the next event. */
static void idle(void)
{
    uint64_t wake = first_wake();

    if (wake == UINT64_MAX)
        fail("every process waits for another");
    set_timer(wake);
    block();
    upcalls_off();
}

/* Nobody runs before the signals that were sent to him have been acted upon. A stopped task keeps them. */
static void signals_take(void)
{
    for (struct task *task = tasks; task < tasks + NR_TASKS; task++) {
        struct signal_info info = task->pending;

        if (!info.signal || (task->state == TASK_STOPPED && info.signal != SIGNAL_KILL))
            continue;
        task->pending.signal = 0;
        if (task->state != TASK_ZOMBIE)
            task_signal(task, &info);
    }
}

void schedule(void)
{
    for (;;) {
        struct task *next;

        signals_take();
        next = pick();

        if (next)
            enter_user_mode(next);
        idle();
    }
}
