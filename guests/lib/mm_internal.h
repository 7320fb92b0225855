/* Shared by mm.c and address_space.c. */
#ifndef MM_INTERNAL_H
#define MM_INTERNAL_H

#include <pv/mm.h>

#include <stddef.h>

/* The entry of `level` for `va` below the level-4 `table`; NULL if an entry above it is not present. */
const uint64_t *walk(const uint64_t *table, unsigned long va, unsigned level);
/* Where a kernel address is in the machine: what mmu_update counts in. */
uint64_t machine_address(const void *va);
/* PTE bits for PROT_*, without PTE_USER. */
uint64_t rights(int prot);

#endif
