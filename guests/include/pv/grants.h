/*
 * Grants: pages that other domains may use.
 *
 * The grant table is shared with Xen, which reads an entry when another domain uses it, and marks it while that lasts.
 * Entries 0 to 7 are not given out here: the domain builder has filled some of them.
 */
#ifndef PV_GRANTS_H
#define PV_GRANTS_H

#include <stdbool.h>
#include <stdint.h>

#include <xen/xen.h>

#include <xen/grant_table.h>

/* Maps the grant table's first frame; to be called once, before the others. */
void grants_init(void);
/* Grants the page at `va` to a domain; fails if all entries are taken. */
grant_ref_t grant_page(domid_t domid, const void *va, bool readonly);
/* Takes a grant back; false if the page is in use. */
bool grant_end(grant_ref_t ref);

/* A mapping of another domain's grant. Without status GNTST_okay there is none. */
struct mapping {
    int status;
    grant_handle_t handle;
    unsigned long mfn;
};

/* Maps a grant of `domid` in place of the page at `va`. */
struct mapping grant_map(domid_t domid, grant_ref_t ref, void *va, bool readonly);
/* Unmaps it; on success the page of before is there again. Returns a GNTST_* status, as the two below. */
int grant_unmap(void *va, grant_handle_t handle);
/* Copies from or to the beginning of a page that `domid` grants; one's own bytes lie within a page. */
int grant_copy_from(domid_t domid, grant_ref_t ref, void *to, unsigned length);
int grant_copy_to(domid_t domid, grant_ref_t ref, const void *from, unsigned length);

#endif
