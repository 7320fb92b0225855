/*
 * old: a kernel of the time before ELF notes: a __xen_guest string, set_callbacks, and hypercalls in their first forms.
 *
 * What it does was all there was for such kernels, and still works: all callbacks are registered by one call; event
 * channels and physical devices take one structure with the command in it; scheduling takes the reason of a shutdown
 * itself. None of these knows a command that was invented later. The symbol table that it asked for lies behind it.
 *
 * Expect: exit 0
 * Expect-output: 7 steps, 0 wrong
 * Expect-output: PASS old
 */
#include <pv/console.h>
#include <pv/events.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/text.h>
#include <pv/time.h>

#define USER_STACK_TOP 0x7ffffffff000ul
#define NOWHERE ((void *)0x10)

extern char old_event[], old_syscall[], old_failsafe[], user_syscall[], user_after[], _symbols[];
extern volatile unsigned event_entries, syscall_entries, failsafe_entries; /* counted by entries.S */

volatile unsigned event_entries, syscall_entries, failsafe_entries;
static volatile unsigned upcalls;
static unsigned ipi, timer; /* ports */
static unsigned wrong;

static void check(const char *what, long got, long expected)
{
    if (got == expected)
        return;
    printk("  %s: %ld, expected %ld\n", what, got, expected);
    wrong++;
}

static long event_op(struct evtchn_op *op)
{
    return HYPERCALL(event_channel_op_compat, op, 0, 0, 0);
}

static long physdev_op(struct physdev_op *op)
{
    return HYPERCALL(physdev_op_compat, op, 0, 0, 0);
}

static long sched_op(unsigned cmd, unsigned long arg)
{
    return HYPERCALL(sched_op_compat, cmd, arg, 0, 0);
}

static void count(unsigned port, struct regs *regs)
{
    (void)port, (void)regs;
    upcalls++;
}

/* BSD kernels find their symbols behind the image: a size, and an ELF file with a symbol table and its strings. */
static void symbol_table(void)
{
    const uint32_t size = *(const uint32_t *)_symbols;
    const char *elf = _symbols + sizeof(size);

    check("an ELF file", memcmp(elf, "\177ELF", 4), 0);
    check("sections", *(const uint16_t *)(elf + 60), 3);
    check("size", size > 4096 && elf + size <= (const char *)start_info->mfn_list, 1);
}

static void callbacks(void)
{
    check("an address that cannot be is passed over",
          HYPERCALL(set_callbacks, old_event, old_failsafe, 1ul << 63, 0), 0);
    check("set_callbacks", HYPERCALL(set_callbacks, old_event, old_failsafe, old_syscall, 0), 0);
}

static void event_channels(void)
{
    struct evtchn_op bind = {.cmd = EVTCHNOP_bind_ipi, .u.bind_ipi.vcpu = 0};
    struct evtchn_op op = {.cmd = EVTCHNOP_unmask};

    check("bind_ipi", event_op(&bind), 0);
    ipi = bind.u.bind_ipi.port;
    event_handle(ipi, count);
    op.u.unmask.port = ipi;
    check("unmask", event_op(&op), 0);
    op.cmd = EVTCHNOP_send;
    op.u.send.port = ipi;
    check("send", event_op(&op), 0);
    check("upcalls", upcalls, 1);
    check("entries", event_entries, 1);
    op.cmd = EVTCHNOP_status;
    op.u.status.dom = DOMID_SELF;
    op.u.status.port = ipi;
    check("status", event_op(&op), 0);
    check("status.status", op.u.status.status, EVTCHNSTAT_ipi);
    op.cmd = EVTCHNOP_close;
    op.u.close.port = ipi;
    check("close", event_op(&op), 0);
    check("close again", event_op(&op), -XEN_EINVAL);
    op.cmd = EVTCHNOP_reset;
    check("a later command", event_op(&op), -XEN_ENOSYS);
    check("a bad pointer", event_op(NOWHERE), -XEN_EFAULT);
}

static void physical_devices(void)
{
    struct physdev_op op = {.cmd = PHYSDEVOP_set_iopl, .u.set_iopl.iopl = 1};

    check("set_iopl", physdev_op(&op), 0);
    op.u.set_iopl.iopl = 4;
    check("an IOPL that cannot be", physdev_op(&op), -XEN_EINVAL);
    op.cmd = PHYSDEVOP_get_free_pirq;
    check("a later command", physdev_op(&op), -XEN_ENOSYS);
    check("a bad pointer", physdev_op(NOWHERE), -XEN_EFAULT);
}

static void scheduling(void)
{
    uint64_t deadline = now_ns() + 2 * NS_PER_MS;
    unsigned before = upcalls;

    check("yield", sched_op(SCHEDOP_yield, 0), 0);
    check("set_timer_op", hypercall_set_timer_op(deadline), 0);
    upcalls_off();
    check("block", sched_op(SCHEDOP_block, 0), 0);
    check("the time has come", now_ns() >= deadline, 1);
    check("upcalls", upcalls - before, 1);
    check("a later command", sched_op(SCHEDOP_poll, 0), -XEN_ENOSYS);
}

static void trap_table(void)
{
    static const struct trap_info none[] = {{0}};

    check("an empty table", hypercall_set_trap_table(none), 0);
    check("a bad pointer", hypercall_set_trap_table(NOWHERE), -XEN_EFAULT);
}

static void system_call(struct regs *regs);

static void user_mode(void)
{
    static struct address_space space;
    struct regs regs = {
        .rip = (uint64_t)user_syscall,
        .cs = FLAT_USER_CS,
        .rflags = RFLAGS_FIXED | RFLAGS_IF,
        .rsp = USER_STACK_TOP,
        .ss = FLAT_USER_SS,
    };

    trap_set(VECTOR_SYSCALL, 0, system_call);
    user_image_map(&space, USER_STACK_TOP);
    regs_enter(&regs); /* and on in system_call() */
}

static const struct step {
    const char *text;
    void (*run)(void);
} steps[] = {
    {"the symbol table lies behind the image", symbol_table},
    {"set_callbacks registers all three", callbacks},
    {"event channels by one structure", event_channels},
    {"physical devices by one structure", physical_devices},
    {"yield and block", scheduling},
    {"set_trap_table", trap_table},
    {"a system call enters where set_callbacks said", user_mode},
};
static const unsigned nr_steps = sizeof(steps) / sizeof(steps[0]);

static void report(unsigned step, unsigned wrong_before)
{
    printk("%s %s\n", wrong == wrong_before ? "ok   " : "WRONG", steps[step].text);
}

/* The last step ends here. */
static void system_call(struct regs *regs)
{
    unsigned wrong_before = wrong;

    check("rax", regs->rax, 0x5555);
    check("rip", regs->rip, (long)user_after);
    check("entries", syscall_entries, 1);
    check("entries of the failsafe callback", failsafe_entries, 0);
    report(nr_steps - 1, wrong_before);
    printk("%u steps, %u wrong\n", nr_steps, wrong);
    if (wrong)
        fail("old");
    printk("PASS old\n");
    while (sched_op(SCHEDOP_shutdown, SHUTDOWN_poweroff) == 0)
        ;
    fail("sched_op_compat does not shut down");
}

void main(const char *command_line)
{
    (void)command_line;
    timer = event_bind_virq(VIRQ_TIMER, count);
    event_unmask(timer);
    upcalls_on();
    for (unsigned i = 0; i < nr_steps; i++) {
        unsigned wrong_before = wrong;

        steps[i].run();
        report(i, wrong_before);
    }
}
