/*
 * Memory under direct paging.
 *
 * The guest's page tables are the processor's: an entry holds a machine frame number (mfn). The guest counts its own
 * memory by pfn; the p2m list leads from pfn to mfn, Xen's M2P table back. A frame in use as a page table is mapped
 * read-only everywhere, and only hypercalls change it.
 *
 * Kernel half: pfn N is at VIRT_BASE + N * 4096, as far as the domain builder's initial mapping goes (a megabyte below
 * the image and at least half a megabyte behind it are free). That mapping is all the memory these guests use.
 *
 * User half: an address space has two top-level tables that share their lower ones. The processor uses `user_l4` in
 * user mode, where no kernel page is reachable, and `kernel_l4` in kernel mode, which has both halves.
 */
#ifndef PV_MM_H
#define PV_MM_H

#include <stdbool.h>
#include <stdint.h>

#include <xen/xen.h>

#define PAGE_SIZE 4096ul
#define PAGE_MASK (~(PAGE_SIZE - 1))

#define PTE_PRESENT 0x1ul
#define PTE_WRITABLE 0x2ul
#define PTE_USER 0x4ul
#define PTE_ACCESSED 0x20ul
#define PTE_DIRTY 0x40ul
#define PTE_NX (1ul << 63)
#define PTE_FRAME 0x000ffffffffff000ul

/* Rights of a mapping. */
enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4 };

struct address_space {
    unsigned long kernel_l4; /* mfn */
    unsigned long user_l4;   /* mfn */
};

extern struct start_info *start_info;
extern char _text[], _etext[], _erodata[], _end[], VIRT_BASE[];
extern char _user_image[], _user_start[], _user_end[];

/* Gives kernel text, read-only data and data their rights, and collects the free pages. */
void mm_init(void);

/* A zeroed page, readable and writable in the kernel half; fails if there is none. */
void *page_alloc(void);
void page_free(void *page);
unsigned pages_free(void);

unsigned long va_to_mfn(const void *va);
void *mfn_to_va(unsigned long mfn);

/* Maps a frame in place of a kernel page, or changes the rights of the page; 0 or an errno. */
long kernel_map(const void *va, unsigned long mfn, int prot);
long kernel_protect(const void *va, int prot);

void address_space_create(struct address_space *space);
/* Takes the tables down, not the frames that they mapped. The space must not be the active one. */
void address_space_destroy(struct address_space *space);
/* Loads both tables; NULL means the boot tables and no user half. */
void address_space_switch(const struct address_space *space);
/* Maps a frame at a user address, in place of what was there. */
void user_map(const struct address_space *space, unsigned long va, unsigned long mfn, int prot);
/* The level-1 entry for a user address, 0 if there is none. */
uint64_t user_pte(const struct address_space *space, unsigned long va);
/* Forgets what the processor remembers of the tables. */
void tlb_flush(void);

/* Maps _user_image at _user_start in a new space, with a page of stack below `stack_top`, and activates it. */
void user_image_map(struct address_space *space, unsigned long stack_top);

#endif
