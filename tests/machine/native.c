/*
 * Runs machine code on the processor itself and writes down where it ends: the oracle for what the emulated CPU does in user mode.
 *
 * Standard input is a row of `struct state`, standard output a row of them as the code left them: at the signal that the first
 * exception became. Each runs in a child of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { CODE = 0x400000, DATA = 0x600000, STACK = 0x7ec000, STACK_SIZE = 0x4000, PAGE = 4096, CODE_SIZE = 256, SECONDS = 5 };
enum { USER32_CS = 0x23, USER_DS = 0x2b }; /* Linux, asm/segment.h */

struct state {
    uint8_t code[CODE_SIZE];
    uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
    uint64_t rip, rflags, vector, error, cr2;
    uint64_t mxcsr, fcw;
    uint64_t compat; /* the code is of 32 bits */
    uint8_t xmm[16][16];
    uint8_t data[256]; /* the first bytes of the data page */
    uint8_t stack[64]; /* the last bytes of the stack */
};

static const int gregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
static struct state state;

static void map(uintptr_t at, size_t size, int rights)
{
    if (mmap((void *)at, size, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
        _exit(1);
}

/* Come back from this signal into the code. */
static void start(int signal, siginfo_t *info, void *context)
{
    ucontext_t *c = context;

    (void)signal;
    (void)info;
    for (int i = 0; i < 16; i++)
        c->uc_mcontext.gregs[gregs[i]] = (greg_t)state.gpr[i];
    c->uc_mcontext.gregs[REG_RIP] = (greg_t)state.rip;
    c->uc_mcontext.gregs[REG_EFL] = (greg_t)state.rflags;
    if (state.compat) {
        c->uc_mcontext.gregs[REG_CSGSFS] = (c->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) | USER32_CS;
        __asm__ volatile("mov %0, %%ds\n mov %0, %%es" ::"r"(USER_DS));
    }
    c->uc_mcontext.fpregs->mxcsr = (uint32_t)state.mxcsr;
    c->uc_mcontext.fpregs->cwd = (uint16_t)state.fcw;
    c->uc_mcontext.fpregs->swd = 0;
    c->uc_mcontext.fpregs->ftw = 0;
    memcpy(c->uc_mcontext.fpregs->_xmm, state.xmm, sizeof(state.xmm));
}

static void finish(int signal, siginfo_t *info, void *context)
{
    ucontext_t *c = context;

    /* the handler was called with the code's own alignment checks */
    __asm__ volatile("pushf; andl $~0x40000, (%%rsp); popf" ::: "memory", "cc");
    (void)signal;
    (void)info;
    for (int i = 0; i < 16; i++)
        state.gpr[i] = (uint64_t)c->uc_mcontext.gregs[gregs[i]];
    state.rip = (uint64_t)c->uc_mcontext.gregs[REG_RIP];
    state.rflags = (uint64_t)c->uc_mcontext.gregs[REG_EFL];
    state.vector = (uint64_t)c->uc_mcontext.gregs[REG_TRAPNO];
    state.error = (uint64_t)c->uc_mcontext.gregs[REG_ERR];
    state.cr2 = (uint64_t)c->uc_mcontext.gregs[REG_CR2];
    state.mxcsr = c->uc_mcontext.fpregs->mxcsr;
    state.fcw = c->uc_mcontext.fpregs->cwd;
    memcpy(state.xmm, c->uc_mcontext.fpregs->_xmm, sizeof(state.xmm));
    memcpy(state.data, (void *)DATA, sizeof(state.data));
    memcpy(state.stack, (uint8_t *)STACK + STACK_SIZE - sizeof(state.stack), sizeof(state.stack));
    _exit(write(STDOUT_FILENO, &state, sizeof(state)) != sizeof(state));
}

static void run(void)
{
    static const int ends[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
    static uint8_t signal_stack[64 << 10];
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};

    map(CODE, PAGE, PROT_READ | PROT_WRITE);
    memcpy((void *)CODE, state.code, CODE_SIZE);
    mprotect((void *)CODE, PAGE, PROT_READ | PROT_EXEC);
    map(DATA, PAGE, PROT_READ | PROT_WRITE);
    memcpy((void *)DATA, state.data, sizeof(state.data));
    map(STACK, STACK_SIZE, PROT_READ | PROT_WRITE);
    memcpy((uint8_t *)STACK + STACK_SIZE - sizeof(state.stack), state.stack, sizeof(state.stack));
    sigaltstack(&stack, NULL);
    action.sa_sigaction = finish;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        sigaction(ends[i], &action, NULL);
    action.sa_sigaction = start;
    sigaction(SIGUSR1, &action, NULL);
    alarm(SECONDS);
    raise(SIGUSR1);
    _exit(1);
}

int main(void)
{
    while (fread(&state, sizeof(state), 1, stdin) == 1) {
        pid_t child = fork();
        int status;

        if (child == 0)
            run();
        if (child < 0 || waitpid(child, &status, 0) != child || status) {
            fprintf(stderr, "case ended with status %#x\n", status);
            return 1;
        }
    }
    return 0;
}
