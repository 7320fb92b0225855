/* Tracing: how one process debugs another. See abi.h for what the operations do. */
#include "kernel.h"

#include <pv/text.h>

/* Bits of rflags that a tracer may change: CF PF AF ZF SF TF DF OF. */
#define FLAGS_OF_USER 0xdd5ul

void trace_stop(struct task *task, int signal)
{
    task->stopped_from = task->state == TASK_RUNNING ? TASK_READY : task->state;
    task->state = TASK_STOPPED;
    task->stop_signal = signal;
    trace_complete_wait(task->tracer);
}

/* What the task was about when it was stopped may have come true since. */
static void trace_resume(struct task *task)
{
    task->state = task->stopped_from;
    task_complete_wait(task);
    trace_complete_wait(task);
}

/* If `tracer` waits for a process that has stopped or ended, the wait is over. */
void trace_complete_wait(struct task *tracer)
{
    struct task *task;

    if (tracer->state != TASK_TRACING)
        return;
    task = task_find(tracer->wait_pid);
    if (!task || task->tracer != tracer)
        tracer->regs.rax = ERROR_no_process;
    else if (task->state == TASK_ZOMBIE)
        tracer->regs.rax = TRACE_ENDED | task->exit_status;
    else if (task->state == TASK_STOPPED && task->stop_signal)
        tracer->regs.rax = task->stop_signal;
    else
        return;
    if (task)
        task->stop_signal = 0;
    tracer->state = tracer == current ? TASK_RUNNING : TASK_READY;
}

/* A task that has ended is no tracer any more, and its own tracer is told. */
void trace_forget(struct task *ended)
{
    for (struct task *task = tasks; task < tasks + NR_TASKS; task++) {
        if (task->state == TASK_FREE || task->tracer != ended)
            continue;
        task->tracer = NULL;
        if (task->state == TASK_STOPPED)
            trace_resume(task);
    }
    if (ended->tracer)
        trace_complete_wait(ended->tracer);
}

static long attach(struct task *tracer, struct task *task)
{
    if (task->tracer || task == tracer || task->state == TASK_ZOMBIE)
        return ERROR_bad_argument;
    task->tracer = tracer;
    trace_stop(task, SIGNAL_STOP);
    return 0;
}

static long detach(struct task *task)
{
    task->tracer = NULL;
    task->stepping = 0;
    task->regs.rflags &= ~RFLAGS_TF;
    trace_resume(task);
    return 0;
}

static long resume(struct task *task, int signal, bool step)
{
    task->stepping = step;
    task->regs.rflags = step ? task->regs.rflags | RFLAGS_TF : task->regs.rflags & ~RFLAGS_TF;
    task->stop_signal = 0;
    trace_resume(task);
    if (signal)
        task_exit(task, STATUS_OF_SIGNAL(signal), signal);
    return 0;
}

static long get_regs(struct task *tracer, const struct task *task, uint64_t to)
{
    struct trace_regs out;

    memcpy(&out, &task->regs, offsetof(struct trace_regs, rip)); /* the general registers come first, in one order */
    out.rip = task->regs.rip;
    out.rflags = task->regs.rflags;
    out.rsp = task->regs.rsp;
    return user_write(tracer, to, &out, sizeof(out)) ? 0 : ERROR_bad_address;
}

static long set_regs(const struct task *tracer, struct task *task, uint64_t from)
{
    struct trace_regs in;

    if (!user_read(tracer, &in, from, sizeof(in)))
        return ERROR_bad_address;
    memcpy(&task->regs, &in, offsetof(struct trace_regs, rip));
    task->regs.rip = in.rip;
    task->regs.rflags = (task->regs.rflags & ~FLAGS_OF_USER) | (in.rflags & FLAGS_OF_USER);
    task->regs.rsp = in.rsp;
    return 0;
}

static long peek(struct task *tracer, const struct task *task, uint64_t address, uint64_t to)
{
    uint64_t word;

    if (!user_read(task, &word, address, sizeof(word)) || !user_write(tracer, to, &word, sizeof(word)))
        return ERROR_bad_address;
    return 0;
}

static long info(struct task *tracer, const struct task *task, uint64_t to)
{
    struct trace_info out = {.load_base = task->load_base, .entry = task->entry};

    copy_text(out.path, task->path, sizeof(out.path));
    return user_write(tracer, to, &out, sizeof(out)) ? 0 : ERROR_bad_address;
}

static long wait_for(struct task *tracer, int pid)
{
    tracer->state = TASK_TRACING;
    tracer->wait_pid = pid;
    trace_complete_wait(tracer);
    return 0;
}

long trace(struct task *tracer, enum trace_op op, int pid, uint64_t address, uint64_t data)
{
    struct task *task = task_find(pid);

    if (!task)
        return ERROR_no_process;
    if (op == TRACE_ATTACH)
        return attach(tracer, task);
    if (task->tracer != tracer)
        return ERROR_no_process;
    if (op == TRACE_WAIT)
        return wait_for(tracer, pid);
    if (task->state != TASK_STOPPED)
        return ERROR_bad_argument;
    switch (op) {
    case TRACE_DETACH:
        return detach(task);
    case TRACE_CONTINUE:
        return resume(task, data, false);
    case TRACE_STEP:
        return resume(task, data, true);
    case TRACE_PEEK:
        return peek(tracer, task, address, data);
    case TRACE_POKE:
        return user_poke(task, address, &data, sizeof(data)) ? 0 : ERROR_bad_address;
    case TRACE_GETREGS:
        return get_regs(tracer, task, data);
    case TRACE_SETREGS:
        return set_regs(tracer, task, data);
    case TRACE_INFO:
        return info(tracer, task, data);
    default:
        return ERROR_no_call;
    }
}
