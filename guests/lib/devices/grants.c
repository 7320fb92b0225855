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
