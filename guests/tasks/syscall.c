/* The table of system calls. A call that has to wait, or changes all registers, returns LATER. */
#include "kernel.h"

#include <pv/console.h>
#include <pv/text.h>
#include <pv/time.h>

#define LATER INT64_MIN

typedef long syscall_handler(struct task *task, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4);

#define UNUSED(...) (void)sizeof((uint64_t[]){__VA_ARGS__})

static long sys_exit(struct task *task, uint64_t status, uint64_t a2, uint64_t a3, uint64_t a4)
{
    UNUSED(a2, a3, a4);
    task_exit(task, status & 0xff);
    return LATER;
}

static long sys_write(struct task *task, uint64_t text, uint64_t length, uint64_t a3, uint64_t a4)
{
    char part[128];

    UNUSED(a3, a4);
    for (uint64_t done = 0; done < length; done += sizeof(part)) {
        uint64_t size = length - done < sizeof(part) ? length - done : sizeof(part);

        if (!user_read(task, part, text + done, size))
            return ERROR_bad_address;
        console_write(part, size);
    }
    return length;
}

static long sys_spawn(struct task *task, uint64_t path, uint64_t argv, uint64_t a3, uint64_t a4)
{
    struct task *child = task_new(task);
    int error;

    UNUSED(a3, a4);
    if (!child)
        return ERROR_no_memory;
    error = task_load_from_user(child, task, path, argv);
    if (!error)
        return child->pid;
    task_free(child);
    return error;
}

static long sys_wait(struct task *task, uint64_t pid, uint64_t status, uint64_t a3, uint64_t a4)
{
    UNUSED(a3, a4);
    task->state = TASK_WAITING;
    task->wait_pid = pid;
    task->wait_status = status;
    task_complete_wait(task);
    return LATER;
}

static long sys_sleep(struct task *task, uint64_t milliseconds, uint64_t a2, uint64_t a3, uint64_t a4)
{
    UNUSED(a2, a3, a4);
    if (milliseconds > 1000000)
        return ERROR_bad_argument;
    task_sleep(task, now_ns() + milliseconds * NS_PER_MS);
    return 0;
}

static long sys_getpid(struct task *task, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4)
{
    UNUSED(a1, a2, a3, a4);
    return task->pid;
}

static long sys_kill(struct task *task, uint64_t pid, uint64_t a2, uint64_t a3, uint64_t a4)
{
    struct task *victim = task_find(pid);

    UNUSED(a2, a3, a4);
    if (!victim || victim == &tasks[0] || victim->state == TASK_ZOMBIE)
        return ERROR_no_process;
    task_signal(victim, SIGNAL_KILL);
    return victim == task ? LATER : 0;
}

static long sys_yield(struct task *task, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4)
{
    (void)task;
    UNUSED(a1, a2, a3, a4);
    schedule_yield();
    return 0;
}

static long sys_trace(struct task *task, uint64_t op, uint64_t pid, uint64_t address, uint64_t data)
{
    long result = trace(task, op, pid, address, data);

    return op == TRACE_WAIT && result == 0 ? LATER : result;
}

static long sys_read_file(struct task *task, uint64_t path, uint64_t offset, uint64_t buffer, uint64_t length)
{
    char name[32];
    const char *content;
    size_t size;

    if (!user_read_text(task, name, path, sizeof(name)))
        return ERROR_bad_address;
    content = archive_find(name, &size);
    if (!content)
        return ERROR_no_file;
    if (offset >= size)
        return 0;
    if (length > size - offset)
        length = size - offset;
    return user_write(task, buffer, content + offset, length) ? (long)length : ERROR_bad_address;
}

static long sys_fork(struct task *task, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4)
{
    struct task *child = task_new(task);

    UNUSED(a1, a2, a3, a4);
    if (!child)
        return ERROR_no_memory;
    task_copy(child, task);
    child->regs.rax = 0;
    return child->pid;
}

static long sys_exec(struct task *task, uint64_t path, uint64_t argv, uint64_t a3, uint64_t a4)
{
    int error = task_exec(task, path, argv);

    UNUSED(a3, a4);
    return error ? error : LATER;
}

static syscall_handler *const handlers[NR_SYSCALLS] = {
    [SYS_exit] = sys_exit,   [SYS_write] = sys_write,   [SYS_spawn] = sys_spawn, [SYS_wait] = sys_wait,
    [SYS_sleep] = sys_sleep, [SYS_getpid] = sys_getpid, [SYS_kill] = sys_kill,   [SYS_yield] = sys_yield,
    [SYS_trace] = sys_trace, [SYS_read_file] = sys_read_file, [SYS_fork] = sys_fork, [SYS_exec] = sys_exec,
};

void syscall(struct task *task)
{
    const struct regs *regs = &task->regs;
    long result = ERROR_no_call;

    if (regs->rax < NR_SYSCALLS && handlers[regs->rax])
        result = handlers[regs->rax](task, regs->rdi, regs->rsi, regs->rdx, regs->r10);
    if (result != LATER)
        task->regs.rax = result;
}
