/*
 * What kernel and programs agree on.
 *
 * A system call is the instruction `syscall` with the number in rax and arguments in rdi, rsi, rdx, r10. The result
 * comes back in rax: 0 or more, or one of the negative ERROR_*. rcx and r11 are lost, nothing else.
 */
#ifndef TASKS_ABI_H
#define TASKS_ABI_H

#include <stdint.h>

enum syscall_number {
    SYS_exit = 1,  /* (status): never returns */
    SYS_write,     /* (text, length): to the console */
    SYS_spawn,     /* (path, argv): a new process runs the program; its pid */
    SYS_wait,      /* (pid or 0, int *status): waits for a child to end; its pid */
    SYS_sleep,     /* (milliseconds) */
    SYS_getpid,    /* () */
    SYS_kill,      /* (pid): ends any process but the first, with SIGNAL_KILL */
    SYS_yield,     /* (): lets another process run */
    SYS_trace,     /* (enum trace_op, pid, address, data): see below */
    SYS_read_file, /* (path, offset, buffer, length): from the archive; bytes read */
    SYS_fork,      /* (): a copy of the caller; 0 there, its pid here */
    SYS_exec,      /* (path, argv): another program in the same process; returns only if it cannot */
    NR_SYSCALLS,
};

enum {
    ERROR_no_call = -1,
    ERROR_no_file = -2,
    ERROR_no_process = -3,
    ERROR_no_memory = -4,
    ERROR_bad_address = -5,
    ERROR_bad_argument = -6,
};

/* What an exception does to a process, by the numbers of Unix. A process that one ends has status 128 + number. */
enum signal_number {
    SIGNAL_ILL = 4,
    SIGNAL_TRAP = 5,
    SIGNAL_BUS = 7,
    SIGNAL_FPE = 8,
    SIGNAL_KILL = 9,
    SIGNAL_SEGV = 11,
    SIGNAL_STOP = 19,
};
#define STATUS_OF_SIGNAL(number) (128 + (number))

/* Why a process gets a signal, by the numbers of Unix: 0 if another process sent it. */
enum signal_code {
    ILL_operand = 2,
    FPE_integer_divide = 1,
    FPE_divide = 3,
    FPE_overflow = 4,
    FPE_underflow = 5,
    FPE_inexact = 6,
    FPE_invalid = 7,
    SEGV_not_mapped = 1,
    SEGV_no_right = 2,
    BUS_alignment = 1,
    TRAP_step = 2,
    SI_KERNEL = 0x80,
};

/*
 * Tracing. A tracer attaches to any process, which stops; from then on the process stops for each signal instead of
 * dying of it. While it is stopped, its memory and registers can be read and changed.
 */
enum trace_op {
    TRACE_ATTACH = 1, /* stops the process with SIGNAL_STOP */
    TRACE_DETACH,     /* lets it run on, with no signal */
    TRACE_WAIT,       /* until it stops or ends: the signal, or TRACE_ENDED | status */
    TRACE_CONTINUE,   /* data: a signal to end it with, or 0 */
    TRACE_STEP,       /* one instruction, then SIGNAL_TRAP */
    TRACE_PEEK,       /* data: where to put the 8 bytes at address */
    TRACE_POKE,       /* data: 8 bytes for address, read-only or not; no other process sees them */
    TRACE_GETREGS,    /* data: struct trace_regs */
    TRACE_SETREGS,    /* data: struct trace_regs */
    TRACE_INFO,       /* data: struct trace_info */
};
#define TRACE_ENDED 0x10000

struct trace_regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t rip, rflags, rsp;
};

struct trace_info {
    char path[32];
    uint64_t load_base; /* what to add to the addresses in the file; 0 unless it is position-independent */
    uint64_t entry;
};

#endif
