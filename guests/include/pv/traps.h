/*
 * Traps: what Xen tells the kernel about exceptions, software interrupts, system calls and events.
 *
 * The processor's IDT belongs to Xen. A kernel has a *trap table* instead: for each vector an address, the privilege
 * that `int n` needs to use it, and whether events get masked on entry. Xen writes a bounce frame on the kernel stack
 * and enters there (see lib/entry.S).
 */
#ifndef PV_TRAPS_H
#define PV_TRAPS_H

#include <pv/vectors.h>
#include <stdbool.h>
#include <stdint.h>

#define RFLAGS_FIXED 0x2ul
#define RFLAGS_TF 0x100ul
#define RFLAGS_IF 0x200ul /* in a frame: events were not masked */

/* The interrupted registers, as lib/entry.S builds them on the kernel stack. */
struct regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t vector;
    uint64_t error;
    uint64_t rip;
    uint64_t cs; /* bits 32-39: the upcall mask at the time of the trap */
    uint64_t rflags;
    uint64_t rsp;
    uint64_t ss;
};

typedef void trap_handler(struct regs *regs);

enum {
    GATE_DPL0 = 0, /* no `int n` may use the gate */
    GATE_DPL1 = 1, /* the kernel may: it counts as privilege level 1 */
    GATE_DPL2 = 2,
    GATE_DPL3 = 3,          /* user mode may */
    GATE_MASKS_EVENTS = 4, /* events are masked when the handler is entered */
};

/* Registers all exceptions with a handler that fails, the event, failsafe and system call entries, and the stack. */
void traps_init(void);
/* From now on `vector` enters `handler`; for vectors 0-255 `gate` goes into the trap table. */
void trap_set(unsigned vector, unsigned gate, trap_handler *handler);
/* Takes every handler out of the trap table. */
void traps_clear(void);
/* Where Xen starts the bounce frame when it enters from user mode. */
void kernel_stack_set(void *top);

struct vcpu_guest_context;

/* Writes the handlers, and the callbacks that traps_init() has registered, to the first state of another vcpu. */
void traps_describe(struct vcpu_guest_context *context);

static inline bool from_user(const struct regs *regs)
{
    return (regs->cs & 3) == 3;
}

/* Leaves the kernel for the state in `regs`: the hypercall iret. */
_Noreturn void regs_enter(struct regs *regs);

#endif
