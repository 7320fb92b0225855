#include <pv/console.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/traps.h>

extern char entry_stubs[256][16], entry_event[], entry_syscall[], entry_failsafe[], kernel_stack_top[];

static trap_handler *handlers[NR_VECTORS];
static unsigned gates[256];

void trap_dispatch(struct regs *regs);

void trap_dispatch(struct regs *regs)
{
    handlers[regs->vector](regs);
}

static void unexpected(struct regs *regs)
{
    printk("rip %016lx cs %lx rflags %lx rsp %016lx ss %lx\n", regs->rip, regs->cs, regs->rflags, regs->rsp, regs->ss);
    fail("unexpected trap %lu error %lx in %s mode", regs->vector, regs->error, from_user(regs) ? "user" : "kernel");
}

static void refused_return(struct regs *regs)
{
    fail("Xen could not return to %lx:%lx", regs->cs, regs->rip);
}

void trap_set(unsigned vector, unsigned gate, trap_handler *handler)
{
    struct trap_info table[2] = {
        {.vector = vector, .flags = gate, .cs = FLAT_KERNEL_CS, .address = (unsigned long)entry_stubs[vector & 255]},
        {.address = 0},
    };

    handlers[vector] = handler;
    if (vector < 256)
        gates[vector] = gate;
    if (vector < 256 && hypercall_set_trap_table(table))
        fail("set_trap_table refuses vector %u", vector);
}

void traps_clear(void)
{
    if (hypercall_set_trap_table(NULL))
        fail("set_trap_table refuses to clear");
}

void kernel_stack_set(void *top)
{
    if (hypercall_stack_switch(FLAT_KERNEL_SS, (unsigned long)top))
        fail("stack_switch");
}

static void callback_set(unsigned type, unsigned flags, const char *entry)
{
    struct callback_register callback = {.type = type, .flags = flags, .address = (unsigned long)entry};

    if (hypercall_callback_op(CALLBACKOP_register, &callback))
        fail("callback_op refuses type %u", type);
}

/* Exceptions mask events: no kernel here wants to be interrupted in its handlers. */
void traps_init(void)
{
    for (unsigned vector = 0; vector < 32; vector++)
        trap_set(vector, GATE_DPL0 | GATE_MASKS_EVENTS, unexpected);
    trap_set(VECTOR_BP, GATE_DPL3 | GATE_MASKS_EVENTS, unexpected);
    trap_set(VECTOR_OF, GATE_DPL3 | GATE_MASKS_EVENTS, unexpected);
    trap_set(VECTOR_EVENT, 0, unexpected);
    trap_set(VECTOR_SYSCALL, 0, unexpected);
    trap_set(VECTOR_FAILSAFE, 0, refused_return);
    callback_set(CALLBACKTYPE_event, 0, entry_event);
    callback_set(CALLBACKTYPE_failsafe, CALLBACKF_mask_events, entry_failsafe);
    callback_set(CALLBACKTYPE_syscall, CALLBACKF_mask_events, entry_syscall);
    kernel_stack_set(kernel_stack_top);
}

void traps_describe(struct vcpu_guest_context *context)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        struct trap_info *info = &context->trap_ctxt[vector];

        info->vector = vector;
        info->flags = gates[vector];
        info->cs = FLAT_KERNEL_CS;
        info->address = handlers[vector] ? (unsigned long)entry_stubs[vector] : 0;
    }
    context->event_callback_eip = (unsigned long)entry_event;
    context->failsafe_callback_eip = (unsigned long)entry_failsafe;
    context->syscall_callback_eip = (unsigned long)entry_syscall;
}
