/*
 * int3: kernel code and user code execute int3, and the kernel's handler prints the frame that it was given.
 *
 * The processor's IDT is Xen's. The guest has registered a handler for vector 3 in its trap table; Xen notes the trap,
 * and on its way back to the guest writes a bounce frame on the guest's kernel stack and enters the handler. The saved
 * rip is behind the int3. From kernel mode cs is shown as e030, although the kernel runs at the same privilege as its
 * processes; from user mode as e033, and the frame is at the top of the kernel stack.
 *
 * Expect: exit 0
 * Expect-output: int3 in kernel mode
 * Expect-output: int3 in user mode
 * Expect-output: PASS int3
 */
#include <pv/console.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/traps.h>

#define USER_STACK_TOP 0x7ffffffff000ul

/* The instructions, and the addresses behind them, which the handler must be told. */
void kernel_int3(void), user_int3(void);
extern char kernel_after[], user_after[];

__asm__(".text\n"
        ".type kernel_int3, @function\n"
        "kernel_int3:\n"
        "    mov $0x1111, %ecx\n"
        "    mov $0x2222, %r11d\n"
        "    int3\n"
        "kernel_after:\n"
        "    ret\n"
        ".size kernel_int3, . - kernel_int3\n"
        ".section .user, \"ax\", @progbits\n"
        ".type user_int3, @function\n"
        "user_int3:\n"
        "    mov $0x3333, %ecx\n"
        "    mov $0x4444, %r11d\n"
        "    int3\n"
        "user_after:\n"
        "    jmp .\n"
        ".size user_int3, . - user_int3\n"
        ".text\n");

static void check(const char *what, uint64_t got, uint64_t expected)
{
    if (got != expected)
        fail("%s is %lx instead of %lx", what, got, expected);
}

static void breakpoint(struct regs *regs)
{
    bool user = from_user(regs);

    printk("int3 in %s mode\n", user ? "user" : "kernel");
    printk("  rip %016lx  cs  %04lx  rflags %06lx\n", regs->rip, regs->cs & 0xffff, regs->rflags);
    printk("  rsp %016lx  ss  %04lx\n", regs->rsp, regs->ss);
    printk("  rcx %016lx  r11 %04lx  upcall mask %lu\n", regs->rcx, regs->r11, regs->cs >> 32 & 0xff);

    check("rip", regs->rip, (uint64_t)(user ? user_after : kernel_after));
    check("cs", regs->cs & 0xffff, user ? FLAT_USER_CS : FLAT_KERNEL_CS & ~3);
    check("ss", regs->ss & 0xffff, user ? FLAT_USER_SS : FLAT_KERNEL_SS);
    check("rcx", regs->rcx, user ? 0x3333 : 0x1111);
    check("r11", regs->r11, user ? 0x4444 : 0x2222);
    if (!user)
        return; /* iret, to the ret behind the int3 */
    check("rsp", regs->rsp, USER_STACK_TOP);
    printk("PASS int3\n");
    poweroff();
}

static _Noreturn void enter_user_mode(void)
{
    static struct address_space space;
    struct regs regs = {
        .rip = (uint64_t)user_int3,
        .cs = FLAT_USER_CS,
        .rflags = RFLAGS_FIXED | RFLAGS_IF,
        .rsp = USER_STACK_TOP,
        .ss = FLAT_USER_SS,
    };

    user_image_map(&space, USER_STACK_TOP);
    regs_enter(&regs);
}

void main(const char *command_line)
{
    (void)command_line;
    trap_set(VECTOR_BP, GATE_DPL3 | GATE_MASKS_EVENTS, breakpoint);
    kernel_int3();
    enter_user_mode();
}
