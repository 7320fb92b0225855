#include "program.h"

static long syscall(enum syscall_number number, unsigned long a1, unsigned long a2, unsigned long a3, unsigned long a4)
{
    register unsigned long r10 __asm__("r10") = a4;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)number), "D"(a1), "S"(a2), "d"(a3), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

void exit(int status)
{
    for (;;)
        syscall(SYS_exit, status, 0, 0, 0);
}

long write(const char *text, unsigned long length)
{
    return syscall(SYS_write, (unsigned long)text, length, 0, 0);
}

int spawn(const char *path, char *const argv[])
{
    return syscall(SYS_spawn, (unsigned long)path, (unsigned long)argv, 0, 0);
}

int wait(int pid, int *status)
{
    return syscall(SYS_wait, pid, (unsigned long)status, 0, 0);
}

void sleep(unsigned milliseconds)
{
    syscall(SYS_sleep, milliseconds, 0, 0, 0);
}

int getpid(void)
{
    return syscall(SYS_getpid, 0, 0, 0, 0);
}

int kill(int pid)
{
    return syscall(SYS_kill, pid, 0, 0, 0);
}

void yield(void)
{
    syscall(SYS_yield, 0, 0, 0, 0);
}

long trace(enum trace_op op, int pid, unsigned long address, unsigned long data)
{
    return syscall(SYS_trace, op, pid, address, data);
}

long read_file(const char *path, unsigned long offset, void *buffer, unsigned long length)
{
    return syscall(SYS_read_file, (unsigned long)path, offset, (unsigned long)buffer, length);
}

int fork(void)
{
    return syscall(SYS_fork, 0, 0, 0, 0);
}

int exec(const char *path, char *const argv[])
{
    return syscall(SYS_exec, (unsigned long)path, (unsigned long)argv, 0, 0);
}

void print(const char *format, ...)
{
    char line[256];
    va_list args;

    va_start(args, format);
    write(line, format_text(line, sizeof(line), format, args));
    va_end(args);
}
