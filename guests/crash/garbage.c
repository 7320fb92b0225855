/*
 * Hypercalls with arguments drawn from a fixed sequence of bad ones: pointers to nothing, to Xen, to no canonical
 * address, huge counts, numbers of no hypercall. The same calls in every run.
 *
 * Left out is what is meant to change the caller for good and needs no error to do it: the calls that end, block or
 * reset the domain, replace its stack, segment bases, callbacks, page tables or descriptor tables, or return to somewhere
 * else.
 */
#include "crash.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/mm.h>

#define ROUNDS 40

static const unsigned long bad[] = {
    0,
    1,
    7,
    0xfff,
    0x10000000,             /* not mapped */
    0x7fffffffffff,
    0x1234567890abcdef,     /* not canonical */
    0xffff800000000000,     /* Xen's, readable: the M2P table */
    0xffff830000000000,     /* Xen's */
    0xffff880000000000,     /* nobody's */
    0xffffffffffffffff,
    0xfffffffffffffff8,
    0x8000000000000000,
    0xffffffff,
    0x80000000,
};

static const unsigned left_out[] = {
    __HYPERVISOR_set_trap_table, __HYPERVISOR_mmu_update,       __HYPERVISOR_set_gdt,        __HYPERVISOR_stack_switch,
    __HYPERVISOR_set_callbacks,  __HYPERVISOR_fpu_taskswitch,   __HYPERVISOR_set_debugreg,   __HYPERVISOR_console_io,
    __HYPERVISOR_sched_op_compat, __HYPERVISOR_vm_assist,       __HYPERVISOR_iret,           __HYPERVISOR_vcpu_op,
    __HYPERVISOR_sched_op,       __HYPERVISOR_callback_op,      __HYPERVISOR_kexec_op,      __HYPERVISOR_set_segment_base,
    __HYPERVISOR_nmi_op,
};

static unsigned long sequence = 1;

/* The high bits of a linear congruential sequence: enough to mix the arguments. */
static unsigned next(unsigned limit)
{
    sequence = sequence * 6364136223846793005ul + 1442695040888963407ul;
    return (sequence >> 33) % limit;
}

static unsigned long argument(void)
{
    return next(4) ? bad[next(sizeof(bad) / sizeof(bad[0]))] : next(32);
}

static bool skipped(unsigned nr)
{
    for (unsigned i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
        if (nr == left_out[i])
            return true;
    return false;
}

/* A number of no hypercall has no entry in the page: the instruction itself, with any rax. */
static long raw_hypercall(unsigned long nr, long a1, long a2, long a3, long a4)
{
    register long r10 __asm__("r10") = a4;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10)
                     : "0"(nr)
                     : "memory", "rcx", "r8", "r9", "r11");
    return result;
}

/* Every hypercall that takes a pointer, with each bad one: it must fail, or have had nothing to read. */
static void pointers(void)
{
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const void *p = (const void *)bad[i];

        if (p != NULL && hypercall_set_trap_table(p) == 0)
            fail("set_trap_table reads from %lx", bad[i]);
        if (hypercall_mmu_update(p, 2) == 0)
            fail("mmu_update reads from %lx", bad[i]);
        if (hypercall_mmuext_op(p, 2) == 0)
            fail("mmuext_op reads from %lx", bad[i]);
        if (hypercall_update_va_mapping(bad[i], ~0ul, UVMF_INVLPG) == 0)
            fail("update_va_mapping maps %lx", bad[i]);
        if (hypercall_callback_op(CALLBACKOP_register, p) == 0)
            fail("callback_op reads from %lx", bad[i]);
        if (hypercall_event_channel_op(EVTCHNOP_bind_ipi, (void *)p) == 0)
            fail("event_channel_op reads from %lx", bad[i]);
        hypercall_console_io(CONSOLEIO_write, 16, p);
    }
}

static void numbers(void)
{
    for (unsigned nr = 43; nr < 48; nr++)
        if (raw_hypercall(nr, 1, 2, 3, 4) != -XEN_ENOSYS)
            fail("hypercall %u exists", nr);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (bad[i] > 64 && (unsigned)bad[i] > 64 && raw_hypercall(bad[i], 1, 2, 3, 4) != -XEN_ENOSYS)
            fail("hypercall %lx exists", bad[i]);
}

static void mixtures(void)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned nr = 0; nr < 48; nr++) {
            unsigned long a1 = argument(), a2 = argument(), a3 = argument(), a4 = argument();

            if (!skipped(nr))
                hypercall(nr, a1, a2, a3, a4);
        }
}

void hypercall_garbage(void)
{
    numbers();
    printk("numbers of no hypercall: done\n");
    pointers();
    printk("pointers to nothing: done\n");
    mixtures();
    printk("mixtures: done\n");
    upcalls_off();
}
