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

#endif
