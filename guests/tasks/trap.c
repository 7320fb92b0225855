/* Entries from user mode: the registers go into the task, and the way back is through the scheduler. */
#include "kernel.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/text.h>

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
    current->orig_rax = regs->vector == VECTOR_SYSCALL ? regs->rax : (uint64_t)-1;
    current->in_user = 0;
}

/* The tracer's single step is done: its trap flag is not the process's. */
static void step_done(struct task *task)
{
    task->stepping = 0;
    task->regs.rflags &= ~RFLAGS_TF;
}

void fault_report(const struct task *task, int signal)
{
    printk("%s (pid %d): signal %d, ", task->name, task->pid, signal);
    printk("vector %lu at %lx", task->regs.vector, task->regs.rip);
    if (task->regs.vector == VECTOR_PF)
        printk(", address %lx", shared_info->vcpu_info[0].arch.cr2);
    printk("\n");
}

/* Which of the exceptions that the processor's flags tell of came first. */
static int floating_point_code(struct task *task)
{
    uint16_t control, status;
    uint32_t mxcsr, raised;

    fpu_save(task);
    memcpy(&control, task->fpu, sizeof(control));
    memcpy(&status, task->fpu + 2, sizeof(status));
    memcpy(&mxcsr, task->fpu + 24, sizeof(mxcsr));
    raised = task->regs.vector == VECTOR_MF ? status & ~control : mxcsr & ~(mxcsr >> 7);
    return raised & 1 ? FPE_invalid : raised & 4 ? FPE_divide : raised & 8 ? FPE_overflow :
           raised & 0x12 ? FPE_underflow : FPE_inexact;
}

static struct signal_info signal_of(struct task *task)
{
    const struct regs *regs = &task->regs;
    struct signal_info info = {.signal = signals[regs->vector], .code = SI_KERNEL, .fault = 1};

    if (!info.signal)
        info.signal = SIGNAL_ILL;
    switch (regs->vector) {
    case VECTOR_PF:
        info.code = regs->error & 1 ? SEGV_no_right : SEGV_not_mapped;
        info.address = shared_info->vcpu_info[0].arch.cr2;
        return info;
    case VECTOR_DE:
        info.code = FPE_integer_divide;
        break;
    case VECTOR_MF:
    case VECTOR_XM:
        info.code = floating_point_code(task);
        break;
    case VECTOR_UD:
        info.code = ILL_operand;
        break;
    case VECTOR_DB:
        info.code = TRAP_step;
        break;
    case VECTOR_AC:
        info.code = BUS_alignment;
        return info;
    default:
        return info;
    }
    info.address = regs->rip;
    return info;
}

static void on_exception(struct regs *regs)
{
    struct signal_info info;

    save(regs);
    if (regs->vector == VECTOR_DB)
        hypercall_set_debugreg(6, 0); /* its bits are never cleared by the processor */
    if (current->stepping)
        step_done(current);
    info = signal_of(current);
    task_signal(current, &info);
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
