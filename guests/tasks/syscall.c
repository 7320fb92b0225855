/* The table of system calls. A call that has to wait, or has put its result into the registers, returns LATER. */
#include "kernel.h"

#include <pv/console.h>
#include <pv/text.h>
#include <pv/time.h>

#define LATER INT64_MIN

typedef long syscall_handler(struct task *task, const uint64_t arg[4]);

static long sys_exit(struct task *task, const uint64_t arg[4])
{
    uint64_t status = arg[0];

    task_exit(task, status & 0xff, 0);
    return LATER;
}

static long sys_write(struct task *task, const uint64_t arg[4])
{
    uint64_t text = arg[0], length = arg[1];
    char part[128];

    for (uint64_t done = 0; done < length; done += sizeof(part)) {
        uint64_t size = length - done < sizeof(part) ? length - done : sizeof(part);

        if (!user_read(task, part, text + done, size))
            return ERROR_bad_address;
        console_write(part, size);
    }
    return length;
}

static long sys_spawn(struct task *task, const uint64_t arg[4])
{
    uint64_t path = arg[0], argv = arg[1];
    struct task *child = task_new(task);
    int error;

    if (!child)
        return ERROR_no_memory;
    error = task_load_from_user(child, task, path, argv);
    if (error) {
        task_free(child);
        return error;
    }
    task->regs.rax = child->pid;
    task_spawned(task, child);
    return LATER;
}

static long sys_wait(struct task *task, const uint64_t arg[4])
{
    uint64_t pid = arg[0], status = arg[1];

    task->state = TASK_WAITING;
    task->wait_pid = pid;
    task->wait_status = status;
    task_complete_wait(task);
    return LATER;
}

static long sys_sleep(struct task *task, const uint64_t arg[4])
{
    uint64_t milliseconds = arg[0];

    if (milliseconds > 1000000)
        return ERROR_bad_argument;
    task_sleep(task, now_ns() + milliseconds * NS_PER_MS);
    return 0;
}

static long sys_getpid(struct task *task, const uint64_t arg[4])
{
    (void)arg;
    return task->pid;
}

static long sys_kill(struct task *task, const uint64_t arg[4])
{
    uint64_t pid = arg[0];
    struct task *victim = task_find(pid);

    if (!victim || victim == &tasks[0] || victim->state == TASK_ZOMBIE)
        return ERROR_no_process;
    victim->pending = (struct signal_info){.signal = SIGNAL_KILL, .sender = task->pid};
    return 0;
}

static long sys_yield(struct task *task, const uint64_t arg[4])
{
    (void)arg;
    (void)task;
    schedule_yield();
    return 0;
}

static long sys_trace(struct task *task, const uint64_t arg[4])
{
    uint64_t op = arg[0], pid = arg[1], address = arg[2], data = arg[3];
    long result = trace(task, op, pid, address, data);

    return op == TRACE_WAIT && result == 0 ? LATER : result;
}

static long sys_read_file(struct task *task, const uint64_t arg[4])
{
    uint64_t path = arg[0], offset = arg[1], buffer = arg[2], length = arg[3];
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

static long sys_fork(struct task *task, const uint64_t arg[4])
{
    (void)arg;
    struct task *child = task_new(task);

    if (!child)
        return ERROR_no_memory;
    task_copy(child, task);
    return LATER;
}

static long sys_exec(struct task *task, const uint64_t arg[4])
{
    uint64_t path = arg[0], argv = arg[1];
    int error = task_exec(task, path, argv);

    return error ? error : LATER;
}

static syscall_handler *const handlers[NR_SYSCALLS] = {
    [SYS_exit] = sys_exit,   [SYS_write] = sys_write,   [SYS_spawn] = sys_spawn, [SYS_wait] = sys_wait,
    [SYS_sleep] = sys_sleep, [SYS_getpid] = sys_getpid, [SYS_kill] = sys_kill,   [SYS_yield] = sys_yield,
    [SYS_trace] = sys_trace, [SYS_read_file] = sys_read_file, [SYS_fork] = sys_fork, [SYS_exec] = sys_exec,
};

void syscall(struct task *task)
{
    const uint64_t arg[4] = {task->regs.rdi, task->regs.rsi, task->regs.rdx, task->regs.r10};
    uint64_t number = task->regs.rax;
    long result = ERROR_no_call;

    if (number < NR_SYSCALLS && handlers[number])
        result = handlers[number](task, arg);
    if (result != LATER)
        task->regs.rax = result;
}
