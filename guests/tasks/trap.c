/* Entries from user mode: the registers go into the task, and the way back is through the scheduler. */
#include "kernel.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>

static const uint8_t signals[32] = {
    [VECTOR_DE] = SIGNAL_FPE, [VECTOR_DB] = SIGNAL_TRAP, [VECTOR_BP] = SIGNAL_TRAP, [VECTOR_OF] = SIGNAL_SEGV,
    [VECTOR_BR] = SIGNAL_SEGV, [VECTOR_UD] = SIGNAL_ILL, [VECTOR_NM] = SIGNAL_FPE, [VECTOR_NP] = SIGNAL_BUS,
    [VECTOR_SS] = SIGNAL_BUS, [VECTOR_GP] = SIGNAL_SEGV, [VECTOR_PF] = SIGNAL_SEGV, [VECTOR_MF] = SIGNAL_FPE,
    [VECTOR_AC] = SIGNAL_BUS, [VECTOR_XM] = SIGNAL_FPE,
};

static void save(const struct regs *regs)
{
    if (!from_user(regs))
        fail("trap %lu error %lx in the kernel at %lx", regs->vector, regs->error, regs->rip);
    current->regs = *regs;
}

/* The tracer's single step is done: its trap flag is not the process's. */
static void step_done(struct task *task)
{
    task->stepping = 0;
    task->regs.rflags &= ~RFLAGS_TF;
}

static void report(const struct task *task, int signal)
{
    printk("%s (pid %d): signal %d, ", task->name, task->pid, signal);
    printk("vector %lu at %lx", task->regs.vector, task->regs.rip);
    if (task->regs.vector == VECTOR_PF)
        printk(", address %lx", shared_info->vcpu_info[0].arch.cr2);
    printk("\n");
}

static void on_exception(struct regs *regs)
{
    int signal = signals[regs->vector];

    save(regs);
    if (regs->vector == VECTOR_DB)
        hypercall_set_debugreg(6, 0); /* its bits are never cleared by the processor */
    if (current->stepping)
        step_done(current);
    if (!signal)
        signal = SIGNAL_ILL;
    if (!current->tracer)
        report(current, signal);
    task_signal(current, signal);
    schedule();
}

/* A step over a system call ends in it, unless it waits. */
static void on_syscall(struct regs *regs)
{
    save(regs);
    syscall(current);
    if (current && current->stepping && current->state == TASK_RUNNING) {
        step_done(current);
        trace_stop(current, SIGNAL_TRAP);
    }
    schedule();
}

/* From the kernel it can only be the idle loop: it looks for itself what has changed. */
static void on_event(struct regs *regs)
{
    if (!from_user(regs)) {
        events_take(regs);
        return;
    }
    save(regs);
    events_take(regs);
    schedule();
}

void traps_to_tasks(void)
{
    for (unsigned vector = 0; vector < 32; vector++)
        trap_set(vector, GATE_DPL0 | GATE_MASKS_EVENTS, on_exception);
    trap_set(VECTOR_BP, GATE_DPL3 | GATE_MASKS_EVENTS, on_exception);
    trap_set(VECTOR_OF, GATE_DPL3 | GATE_MASKS_EVENTS, on_exception);
    trap_set(VECTOR_SYSCALL, 0, on_syscall);
    trap_set(VECTOR_EVENT, 0, on_event);
}
