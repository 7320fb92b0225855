/*
 * User code of 32 bits in Xen's own flat segment (and in one of the guest's), as a 64-bit kernel sees it: by hypercall iret it goes
 * to compatibility mode, by each trap back to 64-bit mode. The frames are those of 64-bit code, with the 32-bit selector.
 */
#include "cpu.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/traps.h>
#include <xen/callback.h>

#define CS32 FLAT_RING3_CS32
#define OWN_CS 0x0bul /* entry 1 of a GDT of the guest's own */
#define STACK_TOP 0x800000ul
#define NOT_MAPPED 0x900000ul
#define SYSENTER_ARGUMENT 0x5e
#define VECTOR_INT80 0x80

#define STRING(x) #x
#define EXPAND(x) STRING(x)

/*
 * Bytes 40 and 48, which add 1 and take 1 away here, are prefixes in 64-bit code. Each label is where a trap must find rip.
 */
extern char entry_syscall[];
extern char compat_start[], at_int80[], at_first_sysenter[], at_sysenter[], at_syscall[], at_into[], at_load[], at_long[], at_own_gate[], at_push[];
extern char at_bound[], step_1[], step_2[], step_3[], at_end[];
__asm__(".section .user, \"ax\", @progbits\n"
        ".code32\n"
        "compat_start:\n"
        "    mov $0xe02b, %ecx\n" /* a null selector is of no use in 32-bit code */
        "    mov %ecx, %ds\n"
        "    mov %ecx, %es\n"
        "    inc %eax\n"
        "    dec %ebx\n"
        "    push %eax\n"
        "    int $0x80\n"
        "at_int80:\n"
        "    mov $" EXPAND(SYSENTER_ARGUMENT) ", %eax\n"
        "    mov %esp, %ebp\n"
        "    sysenter\n"
        "at_first_sysenter:\n"
        "    sysenter\n"
        "at_sysenter:\n"
        "    .byte 0x0f, 0x05\n" /* syscall: the processor is Intel's */
        "at_syscall:\n"
        "    mov $0x7f, %al\n"
        "    inc %al\n"
        "    into\n"
        "at_into:\n"
        "    mov $0x900008, %ecx\n"
        "at_load:\n"
        "    mov 8(%ecx), %eax\n"
        "    movl $1, -8(%esp)\n"
        "    movl $5, -4(%esp)\n"
        "    mov $6, %eax\n"
        "at_bound:\n"
        "    bound %eax, -8(%esp)\n"
        "    ljmp $0xe033, $in_long\n"
        ".code64\n"
        "in_long:\n"
        "    mov $0x123456789, %rdx\n"
        "    ud2\n"
        "at_long:\n"
        "    push $0xe023\n"
        "    push $back_again\n"
        "    lretq\n"
        ".code32\n"
        "back_again:\n"
        "    inc %eax\n"
        "    int $0x81\n"
        "at_own_gate:\n"
        "    mov $0x900000, %esp\n"
        "at_push:\n"
        "    push %eax\n"
        "    pushf\n"
        "    orl $0x100, (%esp)\n"
        "    popf\n"
        "    inc %eax\n"
        "step_1:\n"
        "    dec %eax\n"
        "step_2:\n"
        "    push %cs\n"
        "step_3:\n"
        "    int $0x80\n"
        "at_end:\n"
        "    hlt\n"
        ".code64\n"
        ".text\n");

/* A trap that must come next. Where it is a fault, the guest goes on at `go_on` (0: where it was). */
struct trap {
    const char *what;
    unsigned vector;
    const char *rip;
    unsigned long cs, error;
    const char *go_on;
};

static const struct trap expected[] = {
    {"int 0x80", VECTOR_INT80, at_int80, CS32, 0, NULL},
    {"sysenter without a callback", VECTOR_GP, NULL, 3, 0, at_first_sysenter},
    {"sysenter", VECTOR_SYSCALL, NULL, 3, 0, at_sysenter},
    {"syscall, which is not of 32-bit code", VECTOR_UD, at_sysenter, CS32, 0, at_syscall},
    {"into", VECTOR_OF, at_into, CS32, 0, NULL},
    {"a load from a page that is not there", VECTOR_PF, at_load, CS32, 4, at_load + 3},
    {"bound", VECTOR_BR, at_bound, CS32, 0, at_bound + 4},
    {"ud2 in 64-bit code behind a far jump", VECTOR_UD, at_long - 2, FLAT_USER_CS, 0, at_long},
    {"int 0x81 without a gate, behind a far return", VECTOR_GP, at_own_gate - 2, CS32, 0x81 * 8 + 2, at_own_gate},
    {"a push to a page that is not there", VECTOR_PF, at_push, CS32, 6, NULL},
    {"a single step", VECTOR_DB, step_1, CS32, 0, NULL},
    {"the next", VECTOR_DB, step_2, CS32, 0, NULL},
    {"the last", VECTOR_DB, step_3, CS32, 0, NULL},
    {"int 0x80 at the end", VECTOR_INT80, at_end, CS32, 0, NULL},
    {"hlt in a code segment of the guest's own", VECTOR_GP, at_end, OWN_CS, 0, NULL},
};
enum { NR_EXPECTED = sizeof(expected) / sizeof(expected[0]) };

static unsigned next;

static void register_sysenter(void)
{
    struct callback_register sysenter = {
        .type = CALLBACKTYPE_sysenter, .flags = CALLBACKF_mask_events, .address = (unsigned long)entry_syscall,
    };

    if (hypercall_callback_op(CALLBACKOP_register, &sysenter))
        fail("callback_op refuses sysenter");
}

/* What is special of a trap, beside what `expected` says. */
static void look_closer(struct regs *regs)
{
    switch (next) {
    case 0:
        check("eax after 32-bit arithmetic", regs->rax, 0);
        check("ebx", regs->rbx, 0xffffffff);
        check("esp after push", regs->rsp, STACK_TOP - 4);
        check("r9, which 32-bit code does not see", regs->r9, 1ul << 40);
        break;
    case 1:
        register_sysenter();
        /* fall through */
    case 2:
        check("the argument of sysenter", regs->rax, SYSENTER_ARGUMENT);
        check("rsp of sysenter", regs->rsp, 0);
        regs->rsp = regs->rbp;
        regs->cs = CS32;
        break;
    case 5:
        check("cr2", shared_info->vcpu_info[0].arch.cr2, 0x900010);
        break;
    case 7:
        check("a register of 64 bits", regs->rdx, 0x123456789);
        break;
    case 9:
        check("cr2 of the push", shared_info->vcpu_info[0].arch.cr2, NOT_MAPPED - 4);
        regs->rsp = STACK_TOP;
        break;
    case 12:
        regs->rflags &= ~RFLAGS_TF;
        break;
    case 13:
        regs->cs = OWN_CS;
        break;
    default:
        break;
    }
}

static void user_trap(struct regs *regs)
{
    const struct trap *trap = &expected[next];

    check("vector", regs->vector, trap->vector);
    check("error code", regs->error, trap->error);
    check("rip", regs->rip, (uint64_t)trap->rip);
    check("cs", regs->cs & 0xffff, trap->cs);
    check("ss", regs->ss & 0xffff, FLAT_USER_SS);
    look_closer(regs);
    if (trap->go_on)
        regs->rip = (uint64_t)trap->go_on;
    done(trap->what);
    if (++next == NR_EXPECTED)
        verdict();
}

/* A GDT of one frame, whose entry 1 is flat code of 32 bits. */
static void own_gdt(void)
{
    uint64_t *gdt = page_alloc();
    unsigned long frame = va_to_mfn(gdt);

    gdt[1] = 0x00cffb000000ffff;
    if (kernel_protect(gdt, PROT_READ) || hypercall_set_gdt(&frame, 512))
        fail("set_gdt");
}

void compat_mode(const struct address_space *space)
{
    static const unsigned char vectors[] = {VECTOR_DB, VECTOR_OF, VECTOR_BR, VECTOR_UD, VECTOR_GP, VECTOR_PF, VECTOR_INT80};
    struct regs regs = {
        .rip = (uint64_t)compat_start,
        .cs = CS32,
        .rflags = RFLAGS_FIXED | RFLAGS_IF,
        .rsp = STACK_TOP,
        .ss = FLAT_USER_SS,
        .rax = 0xffffffff,
        .r9 = 1ul << 40,
    };

    user_map(space, STACK_TOP - PAGE_SIZE, va_to_mfn(page_alloc()), PROT_READ | PROT_WRITE);
    own_gdt();
    for (unsigned i = 0; i < sizeof(vectors); i++)
        trap_set(vectors[i], (vectors[i] == VECTOR_OF ? GATE_DPL3 : GATE_DPL0) | GATE_MASKS_EVENTS, user_trap);
    trap_set(VECTOR_SYSCALL, 0, user_trap);
    regs_enter(&regs);
}
