/*
 * Survival. Every exception has a handler that goes on at a place set beforehand; where none is set, the exception is a
 * mistake, of this guest's or of Xen's. What a call may have replaced (trap table, callbacks, kernel stack) is
 * registered again behind it. Upcalls stay masked; one that comes because a call has unmasked them is swallowed.
 */
#include "fuzz.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>

extern char entry_stubs[256][16], entry_event[], entry_syscall[], entry_failsafe[], kernel_stack_top[];

unsigned long faults_survived;

static unsigned long resume_at, resume_sp;
static char *iret_stack;

static void survive(struct regs *regs)
{
    if (regs->vector == VECTOR_DB && !resume_at) {
        /* A breakpoint that the fuzzer itself has set. */
        hypercall_set_debugreg(7, 0);
        regs->rflags &= ~RFLAGS_TF;
        return;
    }
    if (!resume_at) {
        printk("rip %016lx cs %lx rflags %lx rsp %016lx ss %lx\n", regs->rip, regs->cs, regs->rflags, regs->rsp, regs->ss);
        fail("unexpected trap %lu error %lx", regs->vector, regs->error);
    }
    faults_survived++;
    regs->rip = resume_at;
    regs->rsp = resume_sp;
    regs->cs = FLAT_KERNEL_CS & ~3ul; /* a return to privilege level 0 is one to the kernel */
    regs->ss = FLAT_KERNEL_SS;
    regs->rflags = RFLAGS_FIXED;
}

static void swallow(struct regs *regs)
{
    shared_info->vcpu_info[0].evtchn_upcall_pending = 0;
    regs->rflags &= ~RFLAGS_IF;
}

static struct trap_info table[33];

void guard_restore(void)
{
    static const struct {
        unsigned type, flags;
        const char *entry;
    } callbacks[] = {
        {CALLBACKTYPE_event, 0, entry_event},
        {CALLBACKTYPE_failsafe, CALLBACKF_mask_events, entry_failsafe},
        {CALLBACKTYPE_syscall, CALLBACKF_mask_events, entry_syscall},
    };

    if (hypercall_set_trap_table(NULL) || hypercall_set_trap_table(table))
        fail("set_trap_table");
    for (unsigned i = 0; i < sizeof(callbacks) / sizeof(callbacks[0]); i++) {
        struct callback_register callback = {.type = callbacks[i].type, .flags = callbacks[i].flags, .address = (unsigned long)callbacks[i].entry};

        if (hypercall_callback_op(CALLBACKOP_register, &callback))
            fail("callback_op refuses type %u", callback.type);
    }
    kernel_stack_set(kernel_stack_top);
    shared_info->vcpu_info[0].evtchn_upcall_mask = 1;
}

void guard_init(void)
{
    struct sched_shutdown code = {.reason = SHUTDOWN_poweroff};

    iret_stack = (char *)page_alloc() + PAGE_SIZE;
    /* Whatever a call will say later, the domain powers off with this. */
    hypercall_sched_op(SCHEDOP_shutdown_code, &code);
    for (unsigned vector = 0; vector < 32; vector++) {
        trap_set(vector, GATE_DPL3 | GATE_MASKS_EVENTS, survive);
        table[vector] = (struct trap_info){
            .vector = vector, .flags = GATE_DPL3 | GATE_MASKS_EVENTS, .cs = FLAT_KERNEL_CS, .address = (unsigned long)entry_stubs[vector],
        };
    }
    trap_set(VECTOR_EVENT, 0, swallow);
    trap_set(VECTOR_SYSCALL, 0, survive);
    trap_set(VECTOR_FAILSAFE, 0, survive);
    guard_restore();
}

bool guarded_store(uint64_t *at, uint64_t value)
{
    unsigned long before = faults_survived;

    __asm__ volatile("mov %%rsp, %[sp]\n"
                     "movq $1f, %[rip]\n"
                     "mov %[value], (%[at])\n"
                     "1: movq $0, %[rip]\n"
                     : [sp] "=m"(resume_sp), [rip] "=m"(resume_at)
                     : [value] "r"(value), [at] "r"(at)
                     : "memory", "cc");
    return before == faults_survived;
}

/*
 * A kernel stack of its own, since the frame says where rsp is. rip is the way back, in text that user mode can't
 * reach: each wrong frame ends in an exception or in the failsafe callback, on a stack that is good.
 */
void guarded_iret(void)
{
    /* None that may be 32-bit code: not every machine under Xen runs that. */
    static const unsigned codes[] = {FLAT_KERNEL_CS, FLAT_KERNEL_SS, 0, 0xe008, 0xe010, 0xe02b, 0xfff8};
    static const unsigned stacks[] = {FLAT_KERNEL_SS, 0, 3, 7, 0xf, 0x1230, 0xe008, 0xe010, 0xe02b, 0xe033, 0xffff};
    static const unsigned long places[] = {0, 0x1000, 0x7fffffffffff, 0x800000000000, 0xffff800000000000, 0xffff820000000000};
    unsigned long cs = one_in(3) ? PICK(codes) & ~3ul : FLAT_KERNEL_CS & ~3ul;
    unsigned long ss = one_in(3) ? PICK(stacks) : FLAT_KERNEL_SS;
    unsigned long rip = one_in(3) ? PICK(places) : 0;
    unsigned long flags = random_word() & 0xffffffff & ~(RFLAGS_IF | RFLAGS_TF);
    unsigned long sp = (unsigned long)iret_stack - 256;
    unsigned long vgcf = one_in(4) ? random_word() : 0;

    if (one_in(8))
        flags |= RFLAGS_TF;
    __asm__ volatile("mov %%rsp, %[saved]\n"
                     "movq $1f, %[resume]\n"
                     "test %[rip], %[rip]\n"
                     "jnz 2f\n"
                     "mov $1f, %[rip]\n"
                     "2: mov %[sp], %%rsp\n"
                     "push %[ss]\n"
                     "push %[sp]\n"
                     "push %[flags]\n"
                     "push %[cs]\n"
                     "push %[rip]\n"
                     "push %[vgcf]\n"
                     "push $0\n"
                     "push $0\n"
                     "push $0\n"
                     "mov %[nr], %%eax\n"
                     "syscall\n"
                     "1: mov %[saved], %%rsp\n"
                     "cld\n"
                     "movq $0, %[resume]\n"
                     : [saved] "=m"(resume_sp), [resume] "=m"(resume_at), [rip] "+&r"(rip)
                     : [sp] "r"(sp), [ss] "r"(ss), [flags] "r"(flags), [cs] "r"(cs), [vgcf] "r"(vgcf),
                       [nr] "i"(__HYPERVISOR_iret)
                     : "rax", "rcx", "r11", "memory", "cc");
    /* The flags of the frame may still hold: single-step, alignment checks, direction. */
    __asm__ volatile("push $2; popf" ::: "memory", "cc");
    shared_info->vcpu_info[0].evtchn_upcall_mask = 1;
}
