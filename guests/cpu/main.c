/*
 * cpu: what a kernel sees of the processor and of Xen behind it, beyond the plain exceptions (see traps): its own debug
 * registers, single steps, alignment checks, exceptions that depend on an address, model-specific registers, CPUID,
 * ports by IOPL, what an entry through Xen leaves in the registers, and user code of 32 bits (compat.c).
 *
 * Each check compares what the handler of all vectors has seen with what hardware under Xen 4.17 shows.
 *
 * Expect: exit 0
 * Expect-output: 228 checks, 0 wrong
 * Expect-output: PASS cpu
 */
#include <pv/console.h>
#include <pv/events.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/traps.h>

#include "cpu.h"

#define RFLAGS_RF 0x10000ul
#define RFLAGS_AC 0x40000ul
#define RFLAGS_DF 0x400ul
#define NOT_CANONICAL 0x1234567890abcdeful
#define USER_STACK_TOP 0x7ffffffff000ul
#define USER_WORD (USER_STACK_TOP - 64)

enum { EXECUTE, WRITE, READ_WRITE = 3 };
enum { ONE, TWO, EIGHT, FOUR };
#define DR7(n, access, length) (1ul << 2 * (n) | (unsigned long)((access) | (length) << 2) << (16 + 4 * (n)))
#define DR6_STEP 0x4000ul
#define DR6_ONES 0xffff0ff0ul

/* What the handler saw last, how often it was called, and where it goes on (NULL: where the trap came from). */
static struct regs seen;
static unsigned long seen_dr6;
static unsigned traps, wrong, checks;
static uint64_t go_on, expected_rip;

static uint64_t words[8] __attribute__((aligned(64)));

static struct address_space user_space;

void check(const char *what, uint64_t got, uint64_t expected)
{
    checks++;
    if (got == expected)
        return;
    printk("  %s is %lx, expected %lx\n", what, got, expected);
    wrong++;
}

static void handle(struct regs *regs)
{
    seen = *regs;
    traps++;
    if (regs->vector == VECTOR_DB) {
        seen_dr6 = hypercall_get_debugreg(6);
        hypercall_set_debugreg(6, 0);
        regs->rflags |= RFLAGS_RF; /* past a breakpoint for execution */
    }
    if (go_on) {
        regs->rip = go_on;
        regs->rflags &= ~(RFLAGS_TF | RFLAGS_AC);
    }
}

/*
 * Executes `code`, in which the label 2 is where rip must be saved. From there, or from its end, it goes on with `then`.
 */
#define TRAP(code, then, input)                                                                                        \
    __asm__ volatile("lea 2f(%%rip), %%r10\n mov %%r10, %0\n lea 3f(%%rip), %%r10\n mov %%r10, %1\n" code              \
                     "\n 3: " then                                                                                     \
                     : "=m"(expected_rip), "=m"(go_on)                                                                 \
                     : "a"(input)                                                                                      \
                     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r10", "r11", "memory", "cc")

void done(const char *what)
{
    static unsigned wrong_before;

    printk("%s %s\n", wrong == wrong_before ? "ok   " : "WRONG", what);
    wrong_before = wrong;
    traps = 0;
    go_on = 0;
}

static void check_trap(const char *what, unsigned vector, uint64_t error)
{
    check("number of traps", traps, 1);
    check("vector", seen.vector, vector);
    check("error code", seen.error, error);
    check("rip", seen.rip, expected_rip);
    done(what);
}

static void faults(void)
{
    TRAP("2: mov (%%rax), %%rbx", "", NOT_CANONICAL);
    check("RF of a fault", seen.rflags & RFLAGS_RF, RFLAGS_RF);
    check_trap("a load from no canonical address", VECTOR_GP, 0);
    TRAP("mov %%rbp, %%r8\n mov %%rax, %%rbp\n 2: mov (%%rbp), %%rcx", "mov %%r8, %%rbp", NOT_CANONICAL);
    check_trap("the same through rbp", VECTOR_SS, 0);
    TRAP("2: jmp *%%rax", "", NOT_CANONICAL);
    check_trap("a jump to no canonical address", VECTOR_GP, 0);
    TRAP("pushf\n orl $0x40000, (%%rsp)\n popf\n 2: movl %%ecx, 1(%%rax)", "", words);
    check("AC of the interrupted", seen.rflags & RFLAGS_AC, RFLAGS_AC);
    check_trap("a misaligned store with AC", VECTOR_AC, 0);
    TRAP("push $0x1d80\n ldmxcsr (%%rsp)\n xorps %%xmm0, %%xmm0\n cvtsi2ss %%rax, %%xmm1\n 2: divss %%xmm0, %%xmm1",
         "movl $0x1f80, (%%rsp)\n ldmxcsr (%%rsp)\n pop %%rcx", 1ul);
    check_trap("an SSE division by 0 that is not masked", VECTOR_XM, 0);
    TRAP("2: .byte 0xf0; mov %%ecx, (%%rax)", "", words);
    check_trap("lock before a mov", VECTOR_UD, 0);
    TRAP("2: .byte 0xc5, 0xf8, 0x58, 0xc0; nop", "", 0ul);
    check_trap("an instruction of AVX", VECTOR_UD, 0);
}

static void debug_registers(void)
{
    check("set DR0 to an address of Xen's", hypercall_set_debugreg(0, 0xffff800000000000), -XEN_EPERM);
    check("set DR7.GD", hypercall_set_debugreg(7, 0x2000), -XEN_EPERM);
    check("set DR6 beyond 32 bits", hypercall_set_debugreg(6, 1ul << 32), -XEN_EINVAL);
    check("get DR8", hypercall_get_debugreg(8), -XEN_ENODEV);
    hypercall_set_debugreg(6, 0);
    check("DR6 of ones that stay", hypercall_get_debugreg(6), DR6_ONES);
    done("what Xen lets into debug registers");

    hypercall_set_debugreg(0, (unsigned long)&words[2]);
    hypercall_set_debugreg(1, (unsigned long)&words[3]);
    hypercall_set_debugreg(7, DR7(0, WRITE, FOUR) | DR7(1, READ_WRITE, EIGHT));
    TRAP("mov %%ecx, 4(%%rax)\n mov (%%rax), %%rcx\n mov %%cx, 2(%%rax)\n 2:", "", &words[2]);
    check("DR6", seen_dr6, DR6_ONES | 1);
    check_trap("a store to DR0, and none beside it", VECTOR_DB, 0);
    TRAP("movups (%%rax), %%xmm0\n 2:", "", &words[2]);
    check("DR6", seen_dr6, DR6_ONES | 2);
    check_trap("a load that runs on into DR1", VECTOR_DB, 0);
    __asm__ volatile("mov %0, %%dr7" ::"r"(0x400ul));
    words[2] = words[3] = 0;
    check("number of traps with both off", traps, 0);
    done("mov to DR7");

    TRAP("lea 2f(%%rip), %%rcx\n mov %%rcx, %%dr2\n mov %%rax, %%dr7\n 2: nop", "", DR7(2, EXECUTE, ONE));
    check("DR6", seen_dr6, DR6_ONES | 4);
    check("RF of a breakpoint", seen.rflags & RFLAGS_RF, 0);
    check_trap("an instruction at DR2", VECTOR_DB, 0);
    TRAP("mov $3, %%ecx\n lea 2f(%%rip), %%rdx\n mov %%rdx, %%dr2\n movq $0, %1\n 2: loop 2b", "", 0ul);
    check("number of traps in a loop that RF resumes", traps, 3);
    hypercall_set_debugreg(7, 0);
    done("three times at DR2");
}

static void single_steps(void)
{
    TRAP("pushf\n orl $0x100, (%%rsp)\n popf\n nop\n 2: nop", "", 0ul);
    check("DR6", seen_dr6, DR6_ONES | DR6_STEP);
    check_trap("TF by popf", VECTOR_DB, 0);
    TRAP("pushf\n orl $0x100, (%%rsp)\n popf\n mov $0x10, %%ecx\n 2: nop", "", 0ul);
    check_trap("TF over one instruction", VECTOR_DB, 0);
    TRAP("mov %%ss, %%ecx\n pushf\n orl $0x100, (%%rsp)\n popf\n mov %%ecx, %%ss\n nop\n 2: nop", "", 0ul);
    check_trap("TF waits behind a load of SS", VECTOR_DB, 0);
    TRAP("pushf\n orl $0x100, (%%rsp)\n popf\n cpuid\n 2: nop", "", 0ul);
    check_trap("TF over an instruction that Xen carries out", VECTOR_DB, 0);
    TRAP("int1\n 2:", "", 0ul);
    check("DR6 has no cause of int1", seen_dr6, DR6_ONES);
    check_trap("int1", VECTOR_DB, 0);
}

static uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static void registers_of_the_model(void)
{
    check("EFER", rdmsr(0xc0000080), 0xd01);
    check("PERF_CTL", rdmsr(0x199), 0);
    check("APIC_BASE", rdmsr(0x1b), 0xfee00900);
    check("MCG_CAP", rdmsr(0x179), 0x1000802);
    __asm__ volatile("wrmsr" ::"c"(0xc0000103), "a"(7), "d"(0));
    uint32_t aux;
    __asm__ volatile("rdtscp" : "=c"(aux)::"rax", "rdx");
    check("TSC_AUX by rdtscp", aux, 7);
    done("MSRs that a guest has");
    TRAP("mov $0x10a, %%ecx\n 2: rdmsr", "", 0ul);
    check_trap("ARCH_CAPABILITIES", VECTOR_GP, 0);
    TRAP("mov $0xc0000080, %%ecx\n xor %%edx, %%edx\n 2: wrmsr", "", 0ul);
    check_trap("another EFER", VECTOR_GP, 0);
    TRAP("mov $0xc0000100, %%ecx\n mov $0x12345678, %%edx\n 2: wrmsr", "", 0ul);
    check_trap("an FS base that is not canonical", VECTOR_GP, 0);
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    check("CR4", cr4, 0x660);
}

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "0"(leaf), "2"(subleaf));
}

static void leaves(void)
{
    uint32_t plain[4], forced[4];

    for (unsigned i = 0; i < 6; i++) {
        cpuid(0x40000000 + i, 0, plain);
        __asm__ volatile("ud2a; .ascii \"xen\"; cpuid"
                         : "=a"(forced[0]), "=b"(forced[1]), "=c"(forced[2]), "=d"(forced[3])
                         : "0"(0x40000000 + i), "2"(0));
        for (unsigned j = 0; j < 4; j++)
            check("what forced emulation says", forced[j], plain[j]);
    }
    cpuid(0x40000000, 0, plain);
    check("the last leaf of Xen", plain[0], 0x40000005);
    cpuid(0x40000001, 0, plain);
    check("version", plain[0], 4 << 16 | 17);
    cpuid(0x40000002, 0, plain);
    check("MMU_PT_UPDATE_PRESERVE_AD", plain[2], 1);
    cpuid(1, 0, plain);
    check("XSAVE and AVX", plain[2] & (1u << 26 | 1u << 28), 0);
    check("hypervisor", plain[2] >> 31, 1);
    done("leaves of CPUID");
}

static void ports(void)
{
    struct physdev_set_iopl iopl = {.iopl = 1};
    uint32_t value;

    TRAP("2: in $0x80, %%al", "", 0ul);
    check_trap("a port without the privilege", VECTOR_GP, 0);
    hypercall_physdev_op(PHYSDEVOP_set_iopl, &iopl);
    __asm__ volatile("in $0x80, %%al" : "=a"(value) : "0"(0));
    check("a port without a device", value, 0xff);
    __asm__ volatile("out %%al, $0x70" ::"a"(0x5a));
    __asm__ volatile("in $0x70, %%al" : "=a"(value) : "0"(0));
    check("the CMOS clock's index", value, 0x5a);
    iopl.iopl = 0;
    hypercall_physdev_op(PHYSDEVOP_set_iopl, &iopl);
    TRAP("2: cli", "", 0ul);
    check_trap("cli without the privilege", VECTOR_GP, 0);
}

/* User mode: a word of its stack is watched, and it is single-stepped from its first instruction on. */
void user_code(void);
extern char user_after_store[], user_end[];
__asm__(".section .user, \"ax\", @progbits\n"
        ".type user_code, @function\n"
        "user_code:\n"
        "    nop\n"
        "    std\n"
        "    movq $1, -64(%rsp)\n"
        "user_after_store:\n"
        "    syscall\n"
        "user_end:\n"
        "    ud2\n"
        ".size user_code, . - user_code\n"
        ".text\n");

static uint64_t steps[8], causes[8];

static void user_trap(struct regs *regs)
{
    if (regs->vector == VECTOR_DB) {
        steps[traps] = regs->rip;
        causes[traps++] = hypercall_get_debugreg(6);
        hypercall_set_debugreg(6, 0);
        return;
    }
    check("rip behind syscall", regs->rip, (uint64_t)user_end);
    check("cs of a syscall", regs->cs & 0xffff, FLAT_USER_CS);
    check("DF in the frame", regs->rflags & RFLAGS_DF, RFLAGS_DF);
    check("TF in the frame", regs->rflags & RFLAGS_TF, RFLAGS_TF);
    uint64_t rflags;
    __asm__ volatile("pushf; pop %0" : "=r"(rflags));
    check("DF and TF in the handler", rflags & (RFLAGS_DF | RFLAGS_TF), 0);
    check("number of steps", traps, 3);
    check("the first step", steps[0], (uint64_t)user_code + 1);
    check("its cause", causes[0], DR6_ONES | DR6_STEP);
    check("the step over the store", steps[2], (uint64_t)user_after_store);
    check("its causes", causes[2], DR6_ONES | DR6_STEP | 8);
    done("user mode stepped from iret on, and its own breakpoint");
    hypercall_set_debugreg(7, 0);
    compat_mode(&user_space);
}

void verdict(void)
{
    printk("%u checks, %u wrong\n", checks, wrong);
    if (wrong)
        fail("cpu");
    printk("PASS cpu\n");
    poweroff();
}

static _Noreturn void enter_user_mode(void)
{
    struct regs regs = {
        .rip = (uint64_t)user_code,
        .cs = FLAT_USER_CS,
        .rflags = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF,
        .rsp = USER_STACK_TOP,
        .ss = FLAT_USER_SS,
    };

    user_image_map(&user_space, USER_STACK_TOP);
    trap_set(VECTOR_DB, GATE_DPL0 | GATE_MASKS_EVENTS, user_trap);
    trap_set(VECTOR_SYSCALL, 0, user_trap);
    hypercall_set_debugreg(3, USER_WORD);
    hypercall_set_debugreg(7, DR7(3, WRITE, EIGHT));
    regs_enter(&regs);
}

void main(const char *command_line)
{
    (void)command_line;
    for (unsigned vector = 0; vector < 20; vector++)
        trap_set(vector, GATE_DPL0 | GATE_MASKS_EVENTS, handle);
    faults();
    debug_registers();
    single_steps();
    registers_of_the_model();
    leaves();
    ports();
    enter_user_mode();
}
