/*
 * Hypercalls: one line for each that the guests use. Arguments go in rdi, rsi, rdx, r10, r8 as in the System V ABI for
 * system calls; the result, 0 or more or a negative errno, comes back in rax.
 */
#ifndef PV_HYPERCALL_H
#define PV_HYPERCALL_H

#include <stdint.h>

#include <xen/xen.h>

#include <xen/callback.h>
#include <xen/errno.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>

extern char hypercall_page[];

#define HYPERCALL(name, a1, a2, a3, a4) hypercall(__HYPERVISOR_##name, (long)(a1), (long)(a2), (long)(a3), (long)(a4))

static inline long hypercall(unsigned nr, long a1, long a2, long a3, long a4)
{
    long result;
    register long r10 __asm__("r10") = a4;
    void *entry = hypercall_page + nr * 32;

    __asm__ volatile("call *%[entry]"
                     : "=a"(result), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10)
                     : [entry] "a"(entry)
                     : "memory", "rcx", "r8", "r9", "r11");
    return result;
}

static inline long hypercall_set_trap_table(const struct trap_info *table) { return HYPERCALL(set_trap_table, table, 0, 0, 0); }
static inline long hypercall_mmu_update(const struct mmu_update *list, unsigned count) { return HYPERCALL(mmu_update, list, count, 0, DOMID_SELF); }
static inline long hypercall_mmuext_op(const struct mmuext_op *list, unsigned count) { return HYPERCALL(mmuext_op, list, count, 0, DOMID_SELF); }
static inline long hypercall_update_va_mapping(unsigned long va, uint64_t pte, unsigned long flags) { return HYPERCALL(update_va_mapping, va, pte, flags, 0); }
static inline long hypercall_set_gdt(const unsigned long *frames, unsigned entries) { return HYPERCALL(set_gdt, frames, entries, 0, 0); }
static inline long hypercall_stack_switch(unsigned ss, unsigned long sp) { return HYPERCALL(stack_switch, ss, sp, 0, 0); }
static inline long hypercall_callback_op(unsigned cmd, const void *arg) { return HYPERCALL(callback_op, cmd, arg, 0, 0); }
static inline long hypercall_set_segment_base(unsigned which, const void *base) { return HYPERCALL(set_segment_base, which, base, 0, 0); }
static inline long hypercall_fpu_taskswitch(int set) { return HYPERCALL(fpu_taskswitch, set, 0, 0, 0); }
static inline long hypercall_set_debugreg(int reg, unsigned long value) { return HYPERCALL(set_debugreg, reg, value, 0, 0); }
static inline unsigned long hypercall_get_debugreg(int reg) { return HYPERCALL(get_debugreg, reg, 0, 0, 0); }
static inline long hypercall_set_timer_op(uint64_t timeout_ns) { return HYPERCALL(set_timer_op, timeout_ns, 0, 0, 0); }
static inline long hypercall_xen_version(unsigned cmd, void *arg) { return HYPERCALL(xen_version, cmd, arg, 0, 0); }
static inline long hypercall_console_io(unsigned cmd, unsigned count, const char *text) { return HYPERCALL(console_io, cmd, count, text, 0); }
static inline long hypercall_physdev_op(unsigned cmd, void *arg) { return HYPERCALL(physdev_op, cmd, arg, 0, 0); }
static inline long hypercall_vcpu_op(unsigned cmd, unsigned vcpu, void *arg) { return HYPERCALL(vcpu_op, cmd, vcpu, arg, 0); }
static inline long hypercall_sched_op(unsigned cmd, void *arg) { return HYPERCALL(sched_op, cmd, arg, 0, 0); }
static inline long hypercall_event_channel_op(unsigned cmd, void *arg) { return HYPERCALL(event_channel_op, cmd, arg, 0, 0); }
static inline long hypercall_grant_table_op(unsigned cmd, void *list, unsigned count) { return HYPERCALL(grant_table_op, cmd, list, count, 0); }

#endif
