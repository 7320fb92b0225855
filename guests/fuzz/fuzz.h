/* What the parts of the fuzzer share. */
#ifndef FUZZ_H
#define FUZZ_H

#include <pv/mm.h>
#include <pv/traps.h>

#include <stdbool.h>
#include <stdint.h>

/* random.c: the sequence that everything is drawn from, and values that are plausible now and then. */
void random_seed(uint64_t seed);
uint64_t random_word(void);
unsigned random_below(unsigned limit);
bool one_in(unsigned n);
uint64_t random_value(void);   /* any word, with a liking for edges */
unsigned random_domid(void);   /* own, other, reserved, nobody's */
unsigned random_count(void);   /* small as a rule */

/* Time enough for what is to end some time: the clock that Xen shares may have been overwritten. */
static inline uint64_t ticks(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

#define PICK(array) ((array)[random_below(sizeof(array) / sizeof((array)[0]))])

/*
 * memory.c: frames and addresses of every kind.
 *
 * The pool is what may be lost: pages that hold nothing, are mapped, freed, pinned and granted. `essential` frames are
 * those that the fuzzer itself runs on: its text, data, stack and page tables. They are offered read-only alone, so
 * that what Xen grants by mistake is a find, and what it grants rightly does no harm.
 */
#define NR_POOL 96

struct pool_page {
    uint64_t *va;
    unsigned long mfn;
};

extern struct pool_page pool[NR_POOL];
extern unsigned long arena_unmapped; /* an address in the kernel half without a page */

void memory_init(void);
/* Gives everything back that can be: the tables unpinned, the mappings gone, missing pages replaced. */
void memory_reset(void);
void memory_release(void);
unsigned long random_frame(bool *essential);
bool is_essential(unsigned long mfn);
unsigned long pool_frame(void);
uint64_t random_pte(void);
/* A machine address of an entry that may be changed, or of none. */
uint64_t random_entry(void);
/* A virtual address whose mapping may be changed, or that has none. */
unsigned long random_slot(void);
/* Where Xen may write, or fails to. */
unsigned long random_buffer(void);
/* Where nothing can be read. */
unsigned long bad_pointer(void);
/* Where something can be read that nobody prepared, and nothing written. */
unsigned long read_only_pointer(void);
/* Fills a page of the pool with something that may be a page table, and makes it read-only. */
void prepare_table(void);
/* Stores to a table as if it were writable. */
void poke_table(void);
void take_frames(const uint64_t *list, long count);
unsigned long boot_l4(void);

/* guard.c: whatever a call leaves behind is put right, and whatever it provokes is survived. */
extern unsigned long faults_survived;

void guard_init(void);
/* The entry points, stacks and assists as before. */
void guard_restore(void);
/* Stores, and survives if it can't. */
bool guarded_store(uint64_t *at, uint64_t value);
/* Leaves by the hypercall iret with a random frame; comes back here, whatever is wrong with it. */
void guarded_iret(void);

/* calls.c */
struct call {
    unsigned long nr;
    unsigned long args[6];
    bool restore;          /* entry points may have changed */
    const uint64_t *taken; /* a list in which the call tells of frames that it gave us */
};

void make_call(struct call *call, bool in_batch);
long issue(const struct call *call);
void make_batch(struct call *call);

#endif
