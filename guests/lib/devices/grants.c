#include <pv/console.h>
#include <pv/grants.h>
#include <pv/hypercall.h>
#include <pv/mm.h>

#define FIRST_REF GNTTAB_NR_RESERVED_ENTRIES
#define NR_REFS (PAGE_SIZE / sizeof(struct grant_entry_v1))

static char table_page[PAGE_SIZE] __attribute__((section(".bss.pages"), aligned(PAGE_SIZE)));

static volatile struct grant_entry_v1 *const table = (struct grant_entry_v1 *)table_page;
static bool taken[NR_REFS];

void grants_init(void)
{
    xen_pfn_t frame;
    struct gnttab_setup_table setup = {.dom = DOMID_SELF, .nr_frames = 1};

    set_xen_guest_handle(setup.frame_list, &frame);
    if (hypercall_grant_table_op(GNTTABOP_setup_table, &setup, 1) || setup.status != GNTST_okay)
        fail("cannot set the grant table up");
    if (kernel_map(table_page, frame, PROT_READ | PROT_WRITE))
        fail("cannot map the grant table");
}

grant_ref_t grant_page(domid_t domid, const void *va, bool readonly)
{
    for (grant_ref_t ref = FIRST_REF; ref < NR_REFS; ref++) {
        if (taken[ref])
            continue;
        taken[ref] = true;
        table[ref].domid = domid;
        table[ref].frame = va_to_mfn(va);
        __asm__ volatile("" ::: "memory"); /* the flags make the entry valid, so they come last */
        table[ref].flags = GTF_permit_access | (readonly ? GTF_readonly : 0);
        return ref;
    }
    fail("no grant entry is free");
}

bool grant_end(grant_ref_t ref)
{
    uint16_t flags = table[ref].flags;

    do {
        if (flags & (GTF_reading | GTF_writing))
            return false;
    } while (!__atomic_compare_exchange_n(&table[ref].flags, &flags, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    taken[ref] = false;
    return true;
}

static void put_back(void *va)
{
    if (kernel_map(va, va_to_mfn(va), PROT_READ | PROT_WRITE))
        fail("the page behind a mapping does not come back");
}

struct mapping grant_map(domid_t domid, grant_ref_t ref, void *va, bool readonly)
{
    struct gnttab_map_grant_ref op = {
        .host_addr = (unsigned long)va,
        .flags = GNTMAP_host_map | (readonly ? GNTMAP_readonly : 0),
        .ref = ref,
        .dom = domid,
    };

    /* Xen flushes nothing when it maps: the processor must have forgotten the page that is there now. */
    if (hypercall_update_va_mapping((unsigned long)va, 0, UVMF_INVLPG | UVMF_LOCAL))
        fail("a page for a mapping can't be unmapped");
    if (hypercall_grant_table_op(GNTTABOP_map_grant_ref, &op, 1))
        fail("map_grant_ref is refused as a whole");
    if (op.status != GNTST_okay)
        put_back(va);
    return (struct mapping){.status = op.status, .handle = op.handle, .mfn = op.dev_bus_addr / PAGE_SIZE};
}

int grant_unmap(void *va, grant_handle_t handle)
{
    struct gnttab_unmap_grant_ref op = {.host_addr = (unsigned long)va, .handle = handle};

    if (hypercall_grant_table_op(GNTTABOP_unmap_grant_ref, &op, 1))
        fail("unmap_grant_ref is refused as a whole");
    if (op.status == GNTST_okay)
        put_back(va);
    return op.status;
}

static int copy(struct gnttab_copy *op)
{
    if (hypercall_grant_table_op(GNTTABOP_copy, op, 1))
        fail("copy is refused as a whole");
    return op->status;
}

int grant_copy_from(domid_t domid, grant_ref_t ref, void *to, unsigned length)
{
    struct gnttab_copy op = {
        .source = {.u.ref = ref, .domid = domid},
        .dest = {.u.gmfn = va_to_mfn(to), .domid = DOMID_SELF, .offset = (unsigned long)to % PAGE_SIZE},
        .len = length,
        .flags = GNTCOPY_source_gref,
    };

    return copy(&op);
}

int grant_copy_to(domid_t domid, grant_ref_t ref, const void *from, unsigned length)
{
    struct gnttab_copy op = {
        .source = {.u.gmfn = va_to_mfn(from), .domid = DOMID_SELF, .offset = (unsigned long)from % PAGE_SIZE},
        .dest = {.u.ref = ref, .domid = domid},
        .len = length,
        .flags = GNTCOPY_dest_gref,
    };

    return copy(&op);
}
