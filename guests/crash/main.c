/*
 * crash: a guest that ends badly, in the way that its command line names.
 *
 * Each way is a mistake that real kernels make. Some are the end of the domain at once, because Xen has nowhere to
 * deliver what happened; some reach the guest's handlers, which say "FAIL" and give up. garbage survives: whatever is
 * passed to a hypercall, the worst that may come back is an error. loop never ends by itself.
 *
 * Expect: exit 3
 * Expect-output: FAIL: the command line must name a way
 *
 * Append: shutdown
 * Expect: exit 3
 *
 * Append: bad-stack
 * Expect: exit 3
 *
 * Append: bad-user-stack
 * Expect: exit 3
 *
 * Append: no-handler
 * Expect: exit 3
 *
 * Append: null-jump
 * Expect: exit 3
 * Expect-output: FAIL: unexpected trap 14 error 10 in kernel mode
 *
 * Append: null-jump-no-handler
 * Expect: exit 3
 *
 * Append: iret-garbage
 * Expect: exit 3
 * Expect-output: FAIL: unexpected trap 13 error 0 in kernel mode
 *
 * Append: iret-bad-selector
 * Expect: exit 3
 * Expect-output: FAIL: unexpected trap 13 error 1230 in kernel mode
 *
 * Append: iret-no-user-tables
 * Expect: exit 3
 *
 * Append: bad-cr3
 * Expect: exit 3
 * Expect-output: FAIL: unexpected trap 13 error 0 in kernel mode
 *
 * Append: stack-overflow
 * Expect: exit 3
 *
 * Append: garbage-crash
 * Expect: exit 3
 * Expect-output: FAIL: after all that
 *
 * Append: garbage
 * Expect: exit 0
 * Expect-output: PASS crash
 *
 * Append: loop
 * Expect: exit 124
 * Expect-output: looping
 */
#include "crash.h"

#include <pv/console.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/text.h>
#include <pv/traps.h>

#define NOT_CANONICAL 0x1234567890abcdeful
#define NOT_MAPPED 0x10000000ul
#define USER_STACK_TOP 0x7ffffffff000ul

/* User code that has nothing to do but trap. */
void user_trap(void);
__asm__(".section .user, \"ax\", @progbits\n"
        ".type user_trap, @function\n"
        "user_trap:\n"
        "    ud2\n"
        ".size user_trap, . - user_trap\n"
        ".text\n");

static void shutdown_crash(void)
{
    crash();
}

/* The bounce frame of the int3 would lie in no memory. */
static void bad_stack(void)
{
    __asm__ volatile("mov %0, %%rsp; int3" ::"r"(NOT_MAPPED));
}

static _Noreturn void enter_user_mode(void)
{
    static struct address_space space;
    struct regs regs = {
        .rip = (uint64_t)user_trap,
        .cs = FLAT_USER_CS,
        .rflags = RFLAGS_FIXED | RFLAGS_IF,
        .rsp = USER_STACK_TOP,
        .ss = FLAT_USER_SS,
    };

    user_image_map(&space, USER_STACK_TOP);
    regs_enter(&regs);
}

/* The stack for entries from user mode was never a stack. */
static void bad_user_stack(void)
{
    kernel_stack_set((void *)NOT_MAPPED);
    enter_user_mode();
}

static void no_handler(void)
{
    traps_clear();
    __asm__ volatile("ud2");
}

static void null_jump(void)
{
    void (*volatile nowhere)(void) = NULL;

    nowhere();
}

static void null_jump_no_handler(void)
{
    traps_clear();
    null_jump();
}

/* The fault of such an iret is Xen's, which hands it on as if the guest had been there already. */
static _Noreturn void iret_to(uint64_t rip, uint64_t cs)
{
    struct regs regs = {.rip = rip, .cs = cs, .rflags = RFLAGS_FIXED, .ss = FLAT_KERNEL_SS};

    regs.rsp = (uint64_t)&regs;
    regs_enter(&regs);
}

static void iret_garbage(void)
{
    iret_to(NOT_CANONICAL, FLAT_KERNEL_CS & ~3);
}

static void iret_bad_selector(void)
{
    iret_to((uint64_t)crash, 0x1230);
}

/* The kernel tables that are loaded know no user half, and no others have been named. */
static void iret_no_user_tables(void)
{
    struct regs regs = {.rip = (uint64_t)user_trap, .cs = FLAT_USER_CS, .rflags = RFLAGS_FIXED, .ss = FLAT_USER_SS};

    regs_enter(&regs);
}

/* Xen refuses a base pointer that is no page table, by either door. */
static void bad_cr3(void)
{
    struct mmuext_op op = {.cmd = MMUEXT_NEW_BASEPTR, .arg1.mfn = va_to_mfn(page_alloc())};
    uint64_t cr3;

    if (hypercall_mmuext_op(&op, 1) == 0)
        fail("NEW_BASEPTR took a writable page");
    op.arg1.mfn = PTE_FRAME / PAGE_SIZE;
    if (hypercall_mmuext_op(&op, 1) == 0)
        fail("NEW_BASEPTR took a frame that is none");
    __asm__ volatile("mov %%cr3, %0; mov %0, %%cr3" : "=r"(cr3));
    printk("what mov reads from cr3 it may write there\n");
    __asm__ volatile("mov %0, %%cr3" : : "r"(PTE_FRAME));
    fail("mov to cr3 took a frame that is none");
}

unsigned recurse(unsigned depth);

unsigned recurse(unsigned depth)
{
    volatile char frame[256];

    frame[0] = depth;
    return depth == ~0u ? 0 : recurse(depth + 1) + frame[0];
}

/* Recursion without an end: a read-only page below the stack stops it, and Xen cannot write there either. */
static void stack_overflow(void)
{
    static char stack[2 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

    if (kernel_protect(stack, PROT_READ))
        fail("cannot write-protect a page");
    __asm__ volatile("mov %0, %%rsp; call recurse" ::"r"(stack + sizeof(stack)));
}

static void garbage_crash(void)
{
    hypercall_garbage();
    fail("after all that");
}

static void garbage(void)
{
    hypercall_garbage();
    printk("PASS crash\n");
    poweroff();
}

static void loop(void)
{
    printk("looping\n");
    for (;;)
        __asm__ volatile("pause");
}

static const struct way {
    const char *name;
    void (*run)(void);
} ways[] = {
    {"shutdown", shutdown_crash},
    {"bad-stack", bad_stack},
    {"bad-user-stack", bad_user_stack},
    {"no-handler", no_handler},
    {"null-jump", null_jump},
    {"null-jump-no-handler", null_jump_no_handler},
    {"iret-garbage", iret_garbage},
    {"iret-bad-selector", iret_bad_selector},
    {"iret-no-user-tables", iret_no_user_tables},
    {"bad-cr3", bad_cr3},
    {"stack-overflow", stack_overflow},
    {"garbage-crash", garbage_crash},
    {"garbage", garbage},
    {"loop", loop},
};

void main(const char *command_line)
{
    const unsigned nr_ways = sizeof(ways) / sizeof(ways[0]);

    for (unsigned i = 0; i < nr_ways; i++) {
        if (strcmp(command_line, ways[i].name))
            continue;
        printk("crashing by %s\n", ways[i].name);
        ways[i].run();
        fail("%s did not crash", ways[i].name);
    }
    printk("ways:");
    for (unsigned i = 0; i < nr_ways; i++)
        printk(" %s", ways[i].name);
    printk("\n");
    fail("the command line must name a way");
}
