/* A process as the copy of another, and a process that becomes another program. */
#include "kernel.h"

#include <pv/text.h>

/* All that a process is, but for who it is: pid, parent and tracer stay as they are. */
static void image_take(struct task *to, const struct task *from)
{
    memcpy(to->name, from->name, sizeof(to->name));
    memcpy(to->path, from->path, sizeof(to->path));
    memcpy(to->auxv, from->auxv, sizeof(to->auxv));
    memcpy(to->vmas, from->vmas, sizeof(to->vmas));
    memcpy(to->fpu, from->fpu, sizeof(to->fpu));
    to->regs = from->regs;
    to->load_base = from->load_base;
    to->entry = from->entry;
    to->nr_auxv = from->nr_auxv;
    to->nr_vmas = from->nr_vmas;
    to->program = from->program;
}

void task_copy(struct task *child, struct task *parent)
{
    fpu_save(parent);
    image_take(child, parent);
    address_space_create(&child->space);
    user_frames_copy(child, parent);
    child->regs.rax = 0;
    parent->regs.rax = child->pid;
    task_forked(parent, child);
}

/* Both return from the system call now, each with its own result. */
void task_forked(struct task *parent, struct task *child)
{
    (void)parent;
    child->state = TASK_READY;
}

/* The new image is made whole before the old one goes: if there is none, nothing has changed. */
int task_exec(struct task *task, uint64_t path, uint64_t argv)
{
    static struct task fresh;
    int error;

    fresh = (struct task){0};
    error = task_load_from_user(&fresh, task, path, argv);
    if (error)
        return error;
    schedule_leave(task);
    user_frames_free(task);
    address_space_destroy(&task->space);
    image_take(task, &fresh);
    task->space = fresh.space;
    task_execed(task);
    return 0;
}

/* The task is the new program, before its first instruction. */
void task_execed(struct task *task)
{
    task->state = TASK_READY;
}
