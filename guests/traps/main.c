/*
 * traps: each vector that a guest can raise, from kernel and user mode, arrives with the right number, error code, rip
 * and frame.
 *
 * For each probe in table.c the kernel executes its instructions, in its own mode or in user mode, and the handler for
 * all vectors compares what it is given with what the table expects, checks the frame (segment selectors, the stack it
 * lies on, the upcall mask before and now), and goes on with the next.
 *
 * Not here: #SS, #AC, #XM and icebp (see cpu), #NMI, #DF, #MC (not a guest's to raise), and the exception without a
 * handler, which is the end of a domain (see crash).
 *
 * Expect: exit 0
 * Expect-output: 56 probes, 0 wrong
 * Expect-output: PASS traps
 */
#include "traps.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/traps.h>

#define DR6_SINGLE_STEP 0x4000ul

/* Saves the callee's registers and the stack pointer, and calls `code`; recover() makes it return. */
void probe_call(void (*code)(void));
extern char probe_return[];
uint64_t probe_stack;

__asm__(".text\n"
        ".type probe_call, @function\n"
        "probe_call:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    mov %rsp, probe_stack(%rip)\n"
        "    call *%rdi\n"
        "probe_return:\n"
        "    mov probe_stack(%rip), %rsp\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n"
        ".size probe_call, . - probe_call\n");

/* Traps from user mode come in on a stack of their own: probe_call is still on the other. */
static char trap_stack[2 * PAGE_SIZE] __attribute__((aligned(16)));

static const struct probe *probe;
static bool trapped, gate_masks;
static unsigned wrong;

static void check(const char *what, uint64_t got, uint64_t expected)
{
    if (got == expected)
        return;
    printk("  %s: %s is %lx, expected %lx\n", probe->text, what, got, expected);
    wrong++;
}

static void check_frame(const struct regs *regs)
{
    bool user = probe->mode == USER;
    uint64_t stack = user ? (uint64_t)(trap_stack + sizeof(trap_stack)) : regs->rsp & ~15ul;

    check("cs", regs->cs & 0xffff, user ? FLAT_USER_CS : FLAT_KERNEL_CS & ~3);
    check("ss", regs->ss & 0xffff, user ? FLAT_USER_SS : FLAT_KERNEL_SS);
    check("end of the frame", (uint64_t)(regs + 1), stack);
    check("saved upcall mask", regs->cs >> 32 & 0xff, 0);
    check("IF in the saved flags", regs->rflags & RFLAGS_IF, RFLAGS_IF);
    check("upcall mask in the handler", shared_info->vcpu_info[0].evtchn_upcall_mask, gate_masks);
    if (regs->vector == VECTOR_PF)
        check("cr2", shared_info->vcpu_info[0].arch.cr2, probe->cr2);
    if (regs->vector == VECTOR_DB)
        check("DR6", hypercall_get_debugreg(6) & DR6_SINGLE_STEP, DR6_SINGLE_STEP);
    if (regs->vector == VECTOR_SYSCALL) {
        check("rcx", regs->rcx, regs->rip);
        check("r11", regs->r11, regs->rflags);
    }
}

/* Goes back to probe_call whatever the mode was: a frame that says "kernel" is all that it takes. */
static void recover(struct regs *regs)
{
    regs->rip = (uint64_t)probe_return;
    regs->cs = FLAT_KERNEL_CS & ~3;
    regs->ss = FLAT_KERNEL_SS;
    regs->rsp = probe_stack;
    regs->rflags = RFLAGS_FIXED | RFLAGS_IF;
}

static void handle(struct regs *regs)
{
    if (trapped || !probe)
        fail("a trap %lu at %lx that nobody asked for", regs->vector, regs->rip);
    trapped = true;
    check("vector", regs->vector, probe->vector);
    check("error code", regs->error, probe->error);
    check("rip", regs->rip, (uint64_t)probe->rip);
    check_frame(regs);
    recover(regs);
}

static void enter_user_mode(void)
{
    struct regs regs = {
        .rip = (uint64_t)probe->code,
        .cs = FLAT_USER_CS,
        .rflags = RFLAGS_FIXED | RFLAGS_IF,
        .rsp = USER_STACK_TOP,
        .ss = FLAT_USER_SS,
    };

    regs_enter(&regs);
}

static void run(const struct probe *next)
{
    unsigned wrong_before = wrong;

    probe = next;
    trapped = false;
    gate_masks = probe->vector == VECTOR_BP || probe->vector == VECTOR_PF || probe->vector == VECTOR_SYSCALL;
    if (probe->vector == VECTOR_NM)
        hypercall_fpu_taskswitch(1);
    else
        __asm__ volatile("fninit");
    probe_call(probe->mode == USER ? enter_user_mode : probe->code);
    if (!trapped) {
        printk("  %s: no trap\n", probe->text);
        wrong++;
    }
    if (probe->vector == VECTOR_NM)
        __asm__ volatile("fninit"); /* Xen has cleared TS before it told us */
    if (probe->vector == VECTOR_DB)
        hypercall_set_debugreg(6, 0);
    probe = NULL;
    printk("%s %s\n", wrong == wrong_before ? "ok   " : "WRONG", next->text);
}

/* Some gates mask events on entry, the others leave them on: both ways are checked. */
static void gates_init(void)
{
    for (unsigned vector = 0; vector < 20; vector++)
        trap_set(vector, GATE_DPL0, handle);
    trap_set(VECTOR_BP, GATE_DPL3 | GATE_MASKS_EVENTS, handle);
    trap_set(VECTOR_OF, GATE_DPL3, handle);
    trap_set(VECTOR_BR, GATE_DPL3, handle);
    trap_set(VECTOR_PF, GATE_DPL0 | GATE_MASKS_EVENTS, handle);
    trap_set(0x80, GATE_DPL3, handle);
    trap_set(GATE_0, GATE_DPL0, handle);
    trap_set(GATE_1, GATE_DPL1, handle);
    trap_set(GATE_2, GATE_DPL2, handle);
    trap_set(GATE_3, GATE_DPL3, handle);
    trap_set(VECTOR_SYSCALL, 0, handle);
    kernel_stack_set(trap_stack + sizeof(trap_stack));
}

void main(const char *command_line)
{
    static struct address_space space;

    (void)command_line;
    user_image_map(&space, USER_STACK_TOP);
    gates_init();
    upcalls_on();
    for (unsigned i = 0; i < nr_probes; i++)
        run(&probes[i]);
    printk("%u probes, %u wrong\n", nr_probes, wrong);
    if (wrong)
        fail("traps");
    printk("PASS traps\n");
}
