/*
 * calls: one way into Xen, over and over. The command line is "NAME TURNS"; the time of a long run tells what a turn
 * costs. See scripts/benchmark/calls.py, which measures it from outside: there is no clock in here.
 */
#include <pv/console.h>
#include <pv/events.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/text.h>
#include <pv/traps.h>

#define USER_STACK_TOP 0x7ffffffff000ul
#define BATCH 64

/* The cheapest way to a hypercall: the registers are set, nothing is saved. */
static inline long call(unsigned long nr, long a1, long a2, long a3, long a4)
{
    register long r10 __asm__("r10") = a4;

    __asm__ volatile("syscall" : "+a"(nr), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10) : : "memory", "rcx", "r8", "r9", "r11");
    return (long)nr;
}

static void succeeded(long result)
{
    if (result)
        fail("a hypercall gives %ld", result);
}

static void version(unsigned long turns)
{
    while (turns--)
        if (call(__HYPERVISOR_xen_version, XENVER_version, 0, 0, 0) <= 0)
            fail("no version");
}

/* Entries of an L1 table of a user half, for two pages in turn: each request changes its entry. */
static struct mmu_update requests[2][BATCH];

static void prepare_requests(void)
{
    static struct address_space space;
    unsigned long pages[2] = {va_to_mfn(page_alloc()), va_to_mfn(page_alloc())};

    address_space_create(&space);
    user_map(&space, 0x400000, pages[0], PROT_READ);
    const uint64_t *l4 = mfn_to_va(space.user_l4);
    const uint64_t *l3 = mfn_to_va((l4[0] & PTE_FRAME) / PAGE_SIZE);
    const uint64_t *l2 = mfn_to_va((l3[0] & PTE_FRAME) / PAGE_SIZE);
    for (unsigned which = 0; which < 2; which++)
        for (unsigned i = 0; i < BATCH; i++) {
            requests[which][i].ptr = (l2[2] & PTE_FRAME) + (i + 1) * 8;
            requests[which][i].val = pages[which] * PAGE_SIZE | PTE_PRESENT | PTE_USER | PTE_WRITABLE | PTE_NX;
        }
}

static void mmu_update(unsigned long turns, unsigned batch)
{
    prepare_requests();
    for (unsigned long turn = 0; turn < turns; turn += batch)
        succeeded(call(__HYPERVISOR_mmu_update, (long)requests[turn / batch & 1], batch, 0, DOMID_SELF));
}

static void mmu_update_single(unsigned long turns)
{
    mmu_update(turns, 1);
}

static void mmu_update_batch(unsigned long turns)
{
    mmu_update(turns, BATCH);
}

static void va_mapping(unsigned long turns)
{
    char *page = page_alloc();
    uint64_t entries[2] = {
        va_to_mfn(page) * PAGE_SIZE | PTE_PRESENT | PTE_USER | PTE_NX,
        va_to_mfn(page) * PAGE_SIZE | PTE_PRESENT | PTE_USER | PTE_NX | PTE_WRITABLE,
    };

    for (unsigned long turn = 0; turn < turns; turn++)
        succeeded(call(__HYPERVISOR_update_va_mapping, (long)page, (long)entries[turn & 1], UVMF_INVLPG, 0));
}

static void tlb_flush_local(unsigned long turns)
{
    static struct mmuext_op op = {.cmd = MMUEXT_TLB_FLUSH_LOCAL};

    while (turns--)
        succeeded(call(__HYPERVISOR_mmuext_op, (long)&op, 1, 0, DOMID_SELF));
}

static struct multicall_entry list[32];

static void multicall(unsigned long turns, unsigned batch)
{
    for (unsigned i = 0; i < batch; i++)
        list[i] = (struct multicall_entry){.op = __HYPERVISOR_xen_version, .args = {XENVER_version}};
    for (unsigned long turn = 0; turn < turns; turn += batch)
        succeeded(call(__HYPERVISOR_multicall, (long)list, batch, 0, 0));
}

static void multicall_8(unsigned long turns)
{
    multicall(turns, 8);
}

static void multicall_32(unsigned long turns)
{
    multicall(turns, 32);
}

static unsigned long taken;

static void take(unsigned port, struct regs *regs)
{
    (void)port, (void)regs;
    taken++;
}

/* The port stays masked: the pending bit is set, and nothing else follows. */
static void send_self(unsigned long turns)
{
    struct evtchn_send send = {.port = event_bind_ipi(take)};

    for (; turns; turns--) {
        succeeded(call(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (long)&send, 0, 0));
        event_clear(send.port);
    }
}

/* The same with the upcall and its way back. */
static void upcall(unsigned long turns)
{
    struct evtchn_send send = {.port = event_bind_ipi(take)};

    event_unmask(send.port);
    upcalls_on();
    for (unsigned long turn = 0; turn < turns; turn++)
        succeeded(call(__HYPERVISOR_event_channel_op, EVTCHNOP_send, (long)&send, 0, 0));
    if (taken != turns)
        fail("%lu upcalls of %lu", taken, turns);
}

static void yield(unsigned long turns)
{
    while (turns--)
        succeeded(call(__HYPERVISOR_sched_op, SCHEDOP_yield, 0, 0, 0));
}

static void set_timer(unsigned long turns)
{
    for (unsigned long turn = 0; turn < turns; turn++)
        succeeded(call(__HYPERVISOR_set_timer_op, (long)((1ul << 48) + turn), 0, 0, 0));
    succeeded(call(__HYPERVISOR_set_timer_op, 0, 0, 0, 0));
}

/* Each iret goes to the next instruction, over a frame that stays as it is; RPL 0 in cs says kernel mode. */
static void iret(unsigned long turns)
{
    struct {
        uint64_t rax, r11, rcx, flags, rip, cs, rflags, rsp, ss;
    } frame = {.cs = FLAT_KERNEL_CS & ~3, .ss = FLAT_KERNEL_SS, .rflags = RFLAGS_FIXED};

    for (; turns; turns--)
        __asm__ volatile("    mov %%rsp, %[rsp]\n"
                         "    lea 1f(%%rip), %%rax\n"
                         "    mov %%rax, %[rip]\n"
                         "    mov %[frame], %%rsp\n"
                         "    mov %[number], %%eax\n"
                         "    syscall\n"
                         "1:\n"
                         : [rsp] "=m"(frame.rsp), [rip] "=m"(frame.rip)
                         : [frame] "r"(&frame), [number] "i"(__HYPERVISOR_iret), "m"(frame)
                         : "memory", "rax", "rcx", "r11");
}

static void count(struct regs *regs)
{
    (void)regs;
    taken++;
}

static void int3(unsigned long turns)
{
    trap_set(VECTOR_BP, GATE_DPL3, count);
    for (unsigned long turn = 0; turn < turns; turn++)
        __asm__ volatile("int3" ::: "memory");
    if (taken != turns)
        fail("%lu traps of %lu", taken, turns);
}

/* mov (%rax),%eax is two bytes long: the handler goes on behind it. */
static void skip(struct regs *regs)
{
    regs->rip += 2;
    taken++;
}

static void page_fault(unsigned long turns)
{
    trap_set(VECTOR_PF, 0, skip);
    for (unsigned long turn = 0; turn < turns; turn++)
        __asm__ volatile("mov (%%rax), %%eax" ::"a"(0x1000) : "memory");
    if (taken != turns)
        fail("%lu faults of %lu", taken, turns);
}

extern char user_loop[];
__asm__(".section .user, \"ax\", @progbits\n"
        ".type user_loop, @function\n"
        "user_loop:\n"
        "    syscall\n"
        "    jmp user_loop\n"
        ".size user_loop, . - user_loop\n"
        ".text\n");

static struct process {
    struct address_space space;
    struct regs regs;
} processes[2];
extern char kernel_stack_top[];
static unsigned current;
static unsigned long switches_left;

/* A system call of one process: the other one goes on, in its own tables. */
static void change_places(struct regs *regs)
{
    if (!switches_left--)
        poweroff();
    processes[current].regs = *regs;
    current ^= 1;
    address_space_switch(&processes[current].space);
    kernel_stack_set(kernel_stack_top);
    *regs = processes[current].regs;
}

static void change_processes(unsigned long turns)
{
    for (unsigned i = 0; i < 2; i++) {
        user_image_map(&processes[i].space, USER_STACK_TOP);
        processes[i].regs = (struct regs){
            .rip = (uint64_t)user_loop,
            .cs = FLAT_USER_CS,
            .rflags = RFLAGS_FIXED | RFLAGS_IF,
            .rsp = USER_STACK_TOP,
            .ss = FLAT_USER_SS,
        };
    }
    current = 1;
    switches_left = turns;
    trap_set(VECTOR_SYSCALL, 0, change_places);
    regs_enter(&processes[1].regs);
}

static const struct {
    const char *name;
    void (*run)(unsigned long turns);
} WORK[] = {
    {"xen_version", version},
    {"mmu_update", mmu_update_single},
    {"mmu_update_64", mmu_update_batch},
    {"update_va_mapping", va_mapping},
    {"tlb_flush", tlb_flush_local},
    {"multicall_8", multicall_8},
    {"multicall_32", multicall_32},
    {"send_self", send_self},
    {"yield", yield},
    {"set_timer", set_timer},
    {"iret", iret},
    {"int3", int3},
    {"page_fault", page_fault},
    {"upcall", upcall},
    {"switch", change_processes},
};

void main(const char *command_line)
{
    for (unsigned i = 0; i < sizeof(WORK) / sizeof(WORK[0]); i++) {
        size_t length = strlen(WORK[i].name);

        if (!strncmp(command_line, WORK[i].name, length) && command_line[length] == ' ') {
            WORK[i].run(parse_number(command_line + length + 1));
            return;
        }
    }
    fail("no work of this name: %s", command_line);
}
