/*
 * A probe is a few instructions that end in a trap, and what the handler must be told about it.
 *
 * probes.S has the instructions: the function NAME, in kernel or user text, and the label NAME_rip at the address that
 * must be saved. Many of them start with what only prepares the trap.
 */
#ifndef TRAPS_H
#define TRAPS_H

#ifndef __ASSEMBLY__
#include <stdint.h>

enum mode { KERNEL, USER };

struct probe {
    const char *text; /* for people */
    enum mode mode;
    void (*code)(void);
    char *rip;        /* what must be saved as rip */
    unsigned vector;
    uint64_t error;
    uint64_t cr2;     /* of a page fault, else 0 */
};

extern const struct probe probes[];
extern const unsigned nr_probes;
#endif

/* Addresses that the probes touch, known to probes.S too. */
#define USER_STACK_TOP 0x7ffffffff000
#define NOT_MAPPED 0x10000000 /* in both halves */
#define USER_READ_ONLY 0x400000
#define USER_NO_EXECUTE 0x7fffffffe000
#define NOT_CANONICAL 0x1234567890abcdef

/* Gates for int n; there is none for GATE_NONE. */
#define GATE_0 0x90
#define GATE_1 0x91
#define GATE_2 0x92
#define GATE_3 0x93
#define GATE_NONE 0x94

#endif
