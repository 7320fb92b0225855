/*
 * One random hypercall: a number, and arguments as a kernel might give them, or not.
 *
 * Structures are prepared in pages that nothing else points to, so that Xen never reads what an earlier call left there:
 * chance alone would sooner or later make a valid request of it that ends the domain. Left out is only what is meant to
 * end it and needs no mistake to do so: shutdown, the last vcpu down, a wait without an end, closing the channels of
 * console and store, and a base pointer without the kernel.
 */
#include "fuzz.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/text.h>

#include <xen/grant_table.h>
#include <xen/memory.h>

#define MAX_BATCH 12
#define FIRST_FREE_PORT 3
#define FIRST_FREE_REF 8

static uint64_t arguments[MAX_BATCH + 1][PAGE_SIZE / 8] __attribute__((section(".bss.pages"), aligned(PAGE_SIZE)));
static uint64_t lists[MAX_BATCH + 1][PAGE_SIZE / 8] __attribute__((section(".bss.pages"), aligned(PAGE_SIZE)));
static multicall_entry_t batch[MAX_BATCH] __attribute__((section(".bss.pages"), aligned(PAGE_SIZE)));

static unsigned place; /* which of the pages the call that is being made has */

static void *argument(size_t size)
{
    return memset(arguments[place], 0, size);
}

/* The prepared structure as a rule, else a pointer with which nothing can go right. */
static unsigned long pointer_to(const void *prepared)
{
    return one_in(12) ? bad_pointer() : (unsigned long)prepared;
}

/* The same where what a read-only page holds by chance can do no harm. */
static unsigned long any_pointer_to(const void *prepared)
{
    return one_in(16) ? read_only_pointer() : pointer_to(prepared);
}

static unsigned random_port(void)
{
    return one_in(6) ? random_value() | 64 : FIRST_FREE_PORT + random_below(70);
}

static unsigned random_ref(void)
{
    return one_in(8) ? random_value() | FIRST_FREE_REF : FIRST_FREE_REF + random_below(24);
}

/* A frame whose contents may be lost. */
static unsigned long loose_frame(void)
{
    bool essential;
    unsigned long mfn = random_frame(&essential);

    return essential ? pool_frame() : mfn;
}

/* -- page tables */

static void mmu_update(struct call *call)
{
    struct mmu_update *list = argument(4 * sizeof(*list));
    unsigned count = 1 + random_below(4);

    for (unsigned i = 0; i < count; i++) {
        list[i].ptr = random_entry();
        list[i].val = random_pte();
        switch (random_below(8)) {
        case 0:
            list[i].ptr |= MMU_PT_UPDATE_PRESERVE_AD;
            break;
        case 1:
            list[i].ptr = loose_frame() * PAGE_SIZE | MMU_MACHPHYS_UPDATE;
            list[i].val = random_value();
            break;
        case 2:
            list[i].ptr |= random_below(8);
        }
    }
    call->args[0] = pointer_to(list);
    call->args[1] = one_in(32) ? random_value() & ~0xfffful : count;
    call->args[2] = one_in(2) ? 0 : random_buffer();
    call->args[3] = one_in(8) ? random_domid() | random_below(4) << 16 : DOMID_SELF;
    if (call->args[1] > 4)
        call->args[0] = bad_pointer();
}

static void mmuext_op(struct call *call)
{
    static const unsigned cmds[] = {
        MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE,
        MMUEXT_UNPIN_TABLE, MMUEXT_UNPIN_TABLE, MMUEXT_NEW_BASEPTR, MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_INVLPG_LOCAL,
        MMUEXT_TLB_FLUSH_MULTI, MMUEXT_INVLPG_MULTI, MMUEXT_TLB_FLUSH_ALL, MMUEXT_INVLPG_ALL, MMUEXT_FLUSH_CACHE,
        MMUEXT_SET_LDT, MMUEXT_NEW_USER_BASEPTR, MMUEXT_CLEAR_PAGE, MMUEXT_COPY_PAGE, MMUEXT_FLUSH_CACHE_GLOBAL,
        MMUEXT_MARK_SUPER, MMUEXT_UNMARK_SUPER,
    };
    struct mmuext_op *list = argument(3 * sizeof(*list));
    unsigned count = 1 + random_below(3);

    for (unsigned i = 0; i < count; i++) {
        bool essential;

        list[i].cmd = one_in(16) ? random_value() | 32 : PICK(cmds);
        list[i].arg1.mfn = random_frame(&essential);
        list[i].arg2.src_mfn = random_frame(&essential);
        switch (list[i].cmd) {
        case MMUEXT_NEW_BASEPTR:
            /* Not one that could be right and lacks the kernel. */
            list[i].arg1.mfn = one_in(2) ? boot_l4() : random_value() & ~0xffffful;
            break;
        case MMUEXT_UNPIN_TABLE:
            list[i].arg1.mfn = loose_frame();
            break;
        case MMUEXT_CLEAR_PAGE:
        case MMUEXT_COPY_PAGE:
            list[i].arg1.mfn = one_in(2) ? pool_frame() : loose_frame();
            break;
        case MMUEXT_TLB_FLUSH_MULTI:
        case MMUEXT_INVLPG_MULTI:
        case MMUEXT_INVLPG_LOCAL:
        case MMUEXT_INVLPG_ALL:
            list[i].arg1.linear_addr = random_buffer();
            *(unsigned long *)&list[i].arg2 = random_buffer();
            break;
        case MMUEXT_SET_LDT:
            list[i].arg1.linear_addr = one_in(3) ? random_value() : random_slot();
            list[i].arg2.nr_ents = one_in(4) ? random_value() : random_below(1024);
        }
    }
    call->args[0] = pointer_to(list);
    call->args[1] = count;
    call->args[2] = one_in(2) ? 0 : random_buffer();
    call->args[3] = one_in(8) ? random_domid() : DOMID_SELF;
}

static void update_va_mapping(struct call *call)
{
    call->args[0] = random_slot();
    call->args[1] = random_pte();
    call->args[2] = one_in(4) ? random_buffer() | random_below(8) : random_below(8);
    call->args[3] = random_domid();
    if (one_in(16))
        call->nr = __HYPERVISOR_update_va_mapping_otherdomain;
}

static void set_gdt(struct call *call)
{
    uint64_t *frames = argument(32 * sizeof(*frames));

    for (unsigned i = 0; i < 16; i++)
        frames[i] = one_in(8) ? loose_frame() : pool_frame();
    call->args[0] = any_pointer_to(frames);
    call->args[1] = one_in(8) ? random_value() : random_below(1200);
}

static void update_descriptor(struct call *call)
{
    static const uint64_t some[] = {0, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff, 0x0000ec00e0330000, 0x0000890000000067};

    call->args[0] = loose_frame() * PAGE_SIZE + (one_in(8) ? random_below(PAGE_SIZE) : random_below(512) * 8);
    call->args[1] = one_in(2) ? PICK(some) : random_word();
}

/* -- memory */

static void memory_op(struct call *call)
{
    unsigned long op = random_below(32);
    uint64_t *list = lists[place];

    for (unsigned i = 0; i < 8; i++) {
        bool essential;

        list[i] = one_in(8) ? random_frame(&essential) : pool_frame();
    }
    switch (op) {
    case XENMEM_increase_reservation:
    case XENMEM_decrease_reservation:
    case XENMEM_populate_physmap:
    case 24: { /* XENMEM_claim_pages, which the header keeps for tool stacks */
        struct xen_memory_reservation *request = argument(sizeof(*request));

        set_xen_guest_handle(request->extent_start, (xen_pfn_t *)pointer_to(list));
        request->nr_extents = one_in(16) ? random_value() | 0x400000000 : random_below(4);
        request->extent_order = one_in(4) ? random_below(12) : 0;
        request->mem_flags = one_in(8) ? random_value() : 0;
        request->domid = one_in(8) ? random_domid() : DOMID_SELF;
        if (op == XENMEM_increase_reservation && request->nr_extents > 4)
            request->nr_extents = 0;
        call->taken = op == XENMEM_decrease_reservation || request->extent_order ? NULL : list;
        break;
    }
    case XENMEM_exchange: {
        struct xen_memory_exchange *request = argument(sizeof(*request));

        request->in.domid = request->out.domid = one_in(8) ? random_domid() : DOMID_SELF;
        request->in.nr_extents = 1 + random_below(4);
        request->in.extent_order = one_in(4) ? random_below(4) : 0;
        request->out.extent_order = one_in(4) ? random_below(4) : 0;
        request->out.nr_extents = one_in(8) ? random_count() : request->in.nr_extents << request->in.extent_order >> request->out.extent_order;
        request->out.mem_flags = one_in(8) ? random_value() : 0;
        set_xen_guest_handle(request->in.extent_start, (xen_pfn_t *)list);
        set_xen_guest_handle(request->out.extent_start, (xen_pfn_t *)(one_in(12) ? bad_pointer() : (unsigned long)(list + 8)));
        request->nr_exchanged = one_in(8) ? random_count() : 0;
        break;
    }
    default: {
        uint64_t *words = argument(64);

        for (unsigned i = 0; i < 8; i++)
            words[i] = one_in(3) ? random_value() : one_in(2) ? random_buffer() : random_domid();
        if (op == XENMEM_set_memory_map)
            words[1] = random_below(4);
    }
    }
    if (one_in(32))
        op |= random_value() << 6 /* MEMOP_EXTENT_SHIFT */;
    call->args[0] = op;
    call->args[1] = pointer_to(arguments[place]);
}

static void grant_op(struct call *call)
{
    unsigned cmd = one_in(16) ? random_value() : random_below(13);
    uint64_t *words = argument(96);

    for (unsigned i = 0; i < 12; i++)
        words[i] = random_value();
    call->args[0] = cmd;
    call->args[2] = one_in(24) ? random_value() : 1;
    switch (cmd) {
    case GNTTABOP_map_grant_ref: {
        struct gnttab_map_grant_ref *op = argument(sizeof(*op));

        op->flags = random_below(64) | (one_in(8) ? random_value() : 0);
        op->host_addr = op->flags & GNTMAP_contains_pte ? pool_frame() * PAGE_SIZE + random_below(64) * 8 : random_slot();
        op->ref = random_ref();
        op->dom = random_domid();
        break;
    }
    case GNTTABOP_unmap_grant_ref: {
        struct gnttab_unmap_grant_ref *op = argument(sizeof(*op));

        op->host_addr = one_in(4) ? pool_frame() * PAGE_SIZE + random_below(64) * 8 : random_slot();
        op->dev_bus_addr = one_in(3) ? loose_frame() * PAGE_SIZE : 0;
        op->handle = random_below(12);
        break;
    }
    case GNTTABOP_unmap_and_replace: {
        struct gnttab_unmap_and_replace *op = argument(sizeof(*op));

        op->host_addr = random_slot();
        op->new_addr = random_slot();
        op->handle = random_below(12);
        break;
    }
    case GNTTABOP_setup_table: {
        struct gnttab_setup_table *op = argument(sizeof(*op));

        op->dom = random_domid();
        op->nr_frames = one_in(8) ? random_value() : random_below(5);
        set_xen_guest_handle(op->frame_list, (xen_pfn_t *)random_buffer());
        break;
    }
    case GNTTABOP_transfer: {
        struct gnttab_transfer *op = argument(sizeof(*op));

        op->mfn = loose_frame();
        op->domid = random_domid();
        op->ref = random_ref();
        break;
    }
    case GNTTABOP_copy: {
        struct gnttab_copy *op = argument(sizeof(*op));

        op->flags = random_below(5);
        op->source.domid = random_domid();
        op->dest.domid = random_domid();
        op->source.u.gmfn = op->flags & GNTCOPY_source_gref ? random_ref() : loose_frame();
        op->dest.u.gmfn = op->flags & GNTCOPY_dest_gref ? random_ref() : pool_frame();
        op->source.offset = random_below(PAGE_SIZE + 8);
        op->dest.offset = random_below(PAGE_SIZE + 8);
        op->len = one_in(2) ? random_below(64) : random_value();
        break;
    }
    case GNTTABOP_swap_grant_ref: {
        struct gnttab_swap_grant_ref *op = argument(sizeof(*op));

        op->ref_a = random_ref();
        op->ref_b = random_ref();
    }
    }
    call->args[1] = call->args[2] > 1 || one_in(12) ? bad_pointer() : (unsigned long)arguments[place];
}

/* -- events, time, vcpus */

static void event_channel_op(struct call *call)
{
    unsigned cmd = one_in(12) ? random_value() | 16 : random_below(14);
    uint32_t *words = argument(32);

    for (unsigned i = 0; i < 8; i++)
        words[i] = one_in(3) ? random_port() : one_in(2) ? random_domid() : random_value();
    switch (cmd) {
    case EVTCHNOP_close:
    case EVTCHNOP_send:
    case EVTCHNOP_unmask:
    case EVTCHNOP_bind_vcpu:
        words[0] = random_port();
        break;
    case EVTCHNOP_reset:
        words[0] = 16 + random_value() % 0x7fe0; /* not this one */
        break;
    case EVTCHNOP_bind_interdomain:
    case EVTCHNOP_alloc_unbound:
        words[0] = random_domid();
    }
    if (cmd == EVTCHNOP_alloc_unbound)
        words[0] |= random_domid() << 16;
    call->args[0] = cmd;
    call->args[1] = cmd == EVTCHNOP_reset ? (unsigned long)words : pointer_to(words);
}

static void sched_op(struct call *call)
{
    static const unsigned cmds[] = {SCHEDOP_yield, SCHEDOP_poll, SCHEDOP_remote_shutdown, SCHEDOP_shutdown_code, SCHEDOP_watchdog, 7, 8, 99};
    unsigned cmd = PICK(cmds);
    uint64_t *words = argument(32);

    for (unsigned i = 0; i < 4; i++)
        words[i] = random_value();
    if (cmd == SCHEDOP_poll) {
        struct sched_poll *op = argument(sizeof(*op));
        evtchn_port_t *ports = (evtchn_port_t *)lists[place];

        for (unsigned i = 0; i < 4; i++)
            ports[i] = random_port();
        set_xen_guest_handle(op->ports, (evtchn_port_t *)pointer_to(ports));
        op->nr_ports = one_in(8) ? random_value() : random_below(4);
        op->timeout = ticks() + 1 + random_below(1000);
    } else if (cmd == SCHEDOP_watchdog) {
        struct sched_watchdog *op = argument(sizeof(*op));

        op->id = random_below(4);
        op->timeout = op->id && one_in(2) ? 0 : 1u << 30; /* far away; a new one that is over at once would be the end */
    }
    call->args[0] = cmd;
    call->args[1] = pointer_to(words);
}

static void vcpu_op(struct call *call)
{
    static const unsigned cmds[] = {
        VCPUOP_initialise, VCPUOP_up, VCPUOP_is_up, VCPUOP_get_runstate_info, VCPUOP_register_runstate_memory_area,
        VCPUOP_set_periodic_timer, VCPUOP_stop_periodic_timer, VCPUOP_set_singleshot_timer, VCPUOP_stop_singleshot_timer,
        VCPUOP_register_vcpu_info, VCPUOP_send_nmi, VCPUOP_get_physid, VCPUOP_register_vcpu_time_memory_area, 14, 99,
    };
    unsigned cmd = PICK(cmds);
    uint64_t *words = argument(64);

    for (unsigned i = 0; i < 8; i++)
        words[i] = random_value();
    call->args[0] = cmd;
    call->args[1] = one_in(3) ? random_value() : 0;
    call->args[2] = one_in(4) ? random_buffer() : (unsigned long)words;
    switch (cmd) {
    case VCPUOP_register_runstate_memory_area:
    case VCPUOP_register_vcpu_time_memory_area:
        words[0] = random_buffer();
        break;
    case VCPUOP_register_vcpu_info: /* one that moves away is not followed here */
        words[1] = PAGE_SIZE - 63 + random_below(64);
        break;
    case VCPUOP_initialise:
        call->args[1] = random_value() | 1;
        call->args[2] = one_in(2) ? bad_pointer() : read_only_pointer();
        break;
    case VCPUOP_up:
        call->args[1] = random_value();
        break;
    case VCPUOP_set_periodic_timer:
        words[0] = 1000000 + random_value() % 1000000000;
        break;
    case VCPUOP_set_singleshot_timer:
        words[0] = ticks() + random_below(100000);
        words[1] = random_below(4);
    }
    if (cmd >= VCPUOP_register_vcpu_info && cmd != VCPUOP_register_vcpu_time_memory_area)
        call->args[2] = pointer_to(words);
}

/* -- entry points and the rest */

static void entry_points(struct call *call)
{
    struct trap_info *table = argument(4 * sizeof(*table));

    call->restore = true;
    switch (random_below(4)) {
    case 0:
        call->nr = __HYPERVISOR_set_trap_table;
        for (unsigned i = 0; i < 3; i++)
            table[i] = (struct trap_info){.vector = random_word(), .flags = random_word(), .cs = random_value(), .address = random_value() | 1};
        call->args[0] = one_in(8) ? 0 : any_pointer_to(table);
        break;
    case 1: {
        struct callback_register *callback = argument(sizeof(*callback));

        call->nr = __HYPERVISOR_callback_op;
        callback->type = one_in(4) ? random_value() : random_below(8);
        callback->flags = random_value();
        callback->address = random_value();
        call->args[0] = one_in(6) ? random_value() : random_below(2);
        call->args[1] = any_pointer_to(callback);
        break;
    }
    case 2:
        call->nr = __HYPERVISOR_set_callbacks;
        break;
    default:
        call->nr = __HYPERVISOR_stack_switch;
        call->args[0] = one_in(2) ? FLAT_KERNEL_SS : random_value();
    }
}

/* Calls whose pointers Xen writes to, or reads little from. */
static void plain_call(struct call *call)
{
    static const unsigned numbers[] = {
        __HYPERVISOR_fpu_taskswitch, __HYPERVISOR_platform_op, __HYPERVISOR_set_debugreg, __HYPERVISOR_get_debugreg,
        __HYPERVISOR_set_timer_op, __HYPERVISOR_xen_version, __HYPERVISOR_xen_version, __HYPERVISOR_console_io,
        __HYPERVISOR_vm_assist, __HYPERVISOR_set_segment_base, __HYPERVISOR_xsm_op, __HYPERVISOR_nmi_op,
        __HYPERVISOR_xenoprof_op, __HYPERVISOR_physdev_op, __HYPERVISOR_hvm_op, __HYPERVISOR_sysctl, __HYPERVISOR_domctl,
        __HYPERVISOR_kexec_op, __HYPERVISOR_argo_op, __HYPERVISOR_xenpmu_op, __HYPERVISOR_dm_op, __HYPERVISOR_hypfs_op,
        __HYPERVISOR_arch_0, __HYPERVISOR_arch_1, 43, 47, 63,
    };
    uint64_t *words = argument(128);

    for (unsigned i = 0; i < 16; i++)
        words[i] = random_value();
    call->nr = one_in(16) ? random_value() | 64 : PICK(numbers);
    for (unsigned i = 0; i < 6; i++)
        call->args[i] = one_in(3) ? random_value() : random_below(16);
    call->args[1] = one_in(2) ? random_buffer() : one_in(2) ? (unsigned long)words : call->args[1];
    switch (call->nr) {
    case __HYPERVISOR_set_debugreg:
        /* A breakpoint in the fuzzer's own text could be hit on the way to where it is taken away, again and again. */
        call->args[0] = random_below(9);
        call->args[1] = one_in(3) ? bad_pointer() : (unsigned long)pool[random_below(NR_POOL)].va + random_below(PAGE_SIZE);
        break;
    case __HYPERVISOR_set_segment_base:
        call->args[1] = random_value();
    }
}

void make_call(struct call *call, bool in_batch)
{
    static const struct {
        unsigned weight;
        unsigned nr;
        void (*make)(struct call *call);
    } kinds[] = {
        {16, __HYPERVISOR_mmu_update, mmu_update},
        {16, __HYPERVISOR_mmuext_op, mmuext_op},
        {12, __HYPERVISOR_update_va_mapping, update_va_mapping},
        {2, __HYPERVISOR_set_gdt, set_gdt},
        {3, __HYPERVISOR_update_descriptor, update_descriptor},
        {12, __HYPERVISOR_memory_op, memory_op},
        {12, __HYPERVISOR_grant_table_op, grant_op},
        {8, __HYPERVISOR_event_channel_op, event_channel_op},
        {3, __HYPERVISOR_sched_op, sched_op},
        {6, __HYPERVISOR_vcpu_op, vcpu_op},
        {2, 0, entry_points},
        {8, 0, plain_call},
    };
    unsigned draw = random_below(100);

    if (!in_batch)
        place = MAX_BATCH;
    *call = (struct call){0};
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (draw < kinds[i].weight) {
            call->nr = kinds[i].nr;
            kinds[i].make(call);
            return;
        }
        draw -= kinds[i].weight;
    }
}

void make_batch(struct call *call)
{
    unsigned count = 1 + random_below(MAX_BATCH);

    *call = (struct call){.nr = __HYPERVISOR_multicall, .restore = true};
    for (place = 0; place < count; place++) {
        struct call each;

        make_call(&each, true);
        batch[place].op = each.nr;
        for (unsigned i = 0; i < 6; i++)
            batch[place].args[i] = each.args[i];
    }
    call->args[0] = one_in(24) ? bad_pointer() : (unsigned long)batch;
    call->args[1] = count;
}

long issue(const struct call *call)
{
    register long r10 __asm__("r10") = call->args[3];
    register long r8 __asm__("r8") = call->args[4];
    register long r9 __asm__("r9") = call->args[5];
    long result, a1 = call->args[0], a2 = call->args[1], a3 = call->args[2];

    __asm__ volatile("syscall"
                     : "=a"(result), "+D"(a1), "+S"(a2), "+d"(a3), "+r"(r10), "+r"(r8), "+r"(r9)
                     : "0"(call->nr)
                     : "memory", "rcx", "r11");
    return result;
}
