/* Processes come, wait for each other, and end. */
#include "kernel.h"

#include <pv/console.h>
#include <pv/text.h>

struct task tasks[NR_TASKS];
struct task *current;

static int last_pid;

static void wake(struct task *task, long result)
{
    task->regs.rax = result;
    task->state = task == current ? TASK_RUNNING : TASK_READY;
}

struct task *task_new(struct task *parent)
{
    for (struct task *task = tasks; task < tasks + NR_TASKS; task++)
        if (task->state == TASK_FREE) {
            *task = (struct task){.pid = ++last_pid, .state = TASK_NEW, .parent = parent, .orig_rax = -1};
            return task;
        }
    return NULL;
}

/* The child has a program of its own, and may run. */
void task_spawned(struct task *parent, struct task *child)
{
    (void)parent;
    child->state = TASK_READY;
}

void task_free(struct task *task)
{
    *task = (struct task){.state = TASK_FREE};
}

struct task *task_find(int pid)
{
    for (struct task *task = tasks; task < tasks + NR_TASKS; task++)
        if (task->state != TASK_FREE && task->pid == pid)
            return task;
    return NULL;
}

/* The first process is everybody's last parent. */
static void children_leave(struct task *task)
{
    for (struct task *child = tasks; child < tasks + NR_TASKS; child++)
        if (child->state != TASK_FREE && child->parent == task)
            child->parent = &tasks[0];
}

static _Noreturn void last_exit(int status)
{
    if (status)
        fail("the first process ended with status %d", status);
    printk("PASS tasks\n");
    poweroff();
}

/* By a signal, if that is not 0. */
void task_exit(struct task *task, int status, int signal)
{
    if (task == &tasks[0])
        last_exit(status);
    schedule_leave(task);
    user_frames_free(task);
    address_space_destroy(&task->space);
    task->nr_vmas = 0;
    task->exit_status = status;
    task->exit_signal = signal;
    task->state = TASK_ZOMBIE;
    children_leave(task);
    trace_forget(task);
    if (task->parent != &tasks[0])
        task_complete_wait(task->parent); /* which may free the task */
    task_complete_wait(&tasks[0]);        /* of the task itself, or of children that it left behind */
}

/*
 * A signal is about to be acted upon: it ends a process, unless somebody traces it and shall hear of it first. With
 * signal 0 nothing happens, and the task goes on where it was.
 */
void task_signal(struct task *task, struct signal_info *info)
{
    int signal = info->signal;

    if (!signal)
        return;
    if (task->tracer && signal != SIGNAL_KILL) {
        trace_stop(task, signal);
        return;
    }
    if (info->fault)
        fault_report(task, signal);
    task_exit(task, STATUS_OF_SIGNAL(signal), signal);
}

/* If `task` waits for a child that has ended, or for none that could, the wait is over. */
void task_complete_wait(struct task *task)
{
    bool any = false;

    if (task->state != TASK_WAITING)
        return;
    for (struct task *child = tasks; child < tasks + NR_TASKS; child++) {
        if (child->state == TASK_FREE || child->parent != task || (task->wait_pid && child->pid != task->wait_pid))
            continue;
        any = true;
        if (child->state != TASK_ZOMBIE)
            continue;
        if (task->wait_status && !user_write(task, task->wait_status, &child->exit_status, sizeof(int))) {
            wake(task, ERROR_bad_address);
            return;
        }
        wake(task, child->pid);
        task_free(child);
        return;
    }
    if (!any)
        wake(task, ERROR_no_process);
}
