/* Starting vcpus. What they share (trap table, callbacks, page tables) is that of vcpu 0. */
#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/traps.h>
#include <pv/vcpu.h>

struct vcpu vcpus[NR_VCPUS];
bool vcpus_are_many;

extern char vcpu_entry[];

_Noreturn void vcpu_main(void);

static void describe(unsigned id)
{
    struct vcpu *vcpu = &vcpus[id];

    vcpu->self = vcpu;
    vcpu->id = id;
    vcpu->info = (volatile struct vcpu_info *)&shared_info->vcpu_info[id];
}

/* Ports notify vcpu 0 until another binds them for itself. */
void vcpu_init(void)
{
    describe(0);
    vcpus[0].ports = ~0ul;
}

unsigned vcpus_count(void)
{
    unsigned count = 0;

    while (count < NR_VCPUS && hypercall_vcpu_op(VCPUOP_is_up, count, NULL) >= 0)
        count++;
    return count;
}

/* From here on the new vcpu is itself: vcpu_entry has called. */
void vcpu_main(void)
{
    this_vcpu()->main();
    for (;;)
        vcpu_down();
}

void vcpu_start(unsigned id, void (*main)(void))
{
    static struct vcpu_guest_context context; /* too large for a stack */
    struct vcpu *vcpu = &vcpus[id];
    long result;

    if (!vcpus_are_many && hypercall_set_segment_base(SEGBASE_GS_KERNEL, &vcpus[0]))
        fail("cannot set the base of GS");
    vcpus_are_many = true;
    describe(id);
    vcpu->main = main;
    vcpu->stack_top = (char *)page_alloc() + PAGE_SIZE;
    context.flags = VGCF_in_kernel | VGCF_syscall_disables_events | VGCF_failsafe_disables_events;
    context.user_regs.rip = (unsigned long)vcpu_entry;
    context.user_regs.rsp = (unsigned long)vcpu->stack_top;
    context.user_regs.rflags = RFLAGS_IF;
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.kernel_ss = FLAT_KERNEL_SS;
    context.kernel_sp = (unsigned long)vcpu->stack_top;
    context.ctrlreg[3] = xen_pfn_to_cr3(va_to_mfn((void *)start_info->pt_base));
    context.gs_base_kernel = (unsigned long)vcpu;
    traps_describe(&context);
    result = hypercall_vcpu_op(VCPUOP_initialise, id, &context);
    if (result)
        fail("cannot initialise vcpu %u: %ld", id, result);
    vcpu_up(id);
}

bool vcpu_is_up(unsigned id)
{
    return hypercall_vcpu_op(VCPUOP_is_up, id, NULL) == 1;
}

void vcpu_down(void)
{
    hypercall_vcpu_op(VCPUOP_down, this_vcpu()->id, NULL);
}

void vcpu_up(unsigned id)
{
    if (hypercall_vcpu_op(VCPUOP_up, id, NULL))
        fail("cannot take vcpu %u up", id);
}
