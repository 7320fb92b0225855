/* One sequence of numbers, the same in every run with the same seed. */
#include "fuzz.h"

#include <xen/xen.h>

static uint64_t state;

void random_seed(uint64_t seed)
{
    state = seed * 0x9e3779b97f4a7c15ul | 1;
}

/* xorshift64* */
uint64_t random_word(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dul;
}

unsigned random_below(unsigned limit)
{
    return (random_word() >> 33) % limit;
}

bool one_in(unsigned n)
{
    return random_below(n) == 0;
}

uint64_t random_value(void)
{
    static const uint64_t edges[] = {
        0,          1,          2,          7,          8,          0xfff,      0x1000,           0x7fff,
        0x8000,     0xffff,     0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffff,  0x800000000000,
        1ul << 62, 1ul << 63, ~0ul,       ~0ul - 7,   0xffff800000000000, 0xffff87ffffffffff, 0xffff880000000000,
    };

    switch (random_below(4)) {
    case 0:
        return PICK(edges);
    case 1:
        return random_below(64);
    case 2:
        return 1ul << random_below(64) | random_below(16);
    default:
        return random_word();
    }
}

unsigned random_domid(void)
{
    static const unsigned domids[] = {DOMID_SELF, DOMID_SELF, DOMID_SELF, 0, 1, 2, 3, DOMID_IO, DOMID_XEN, DOMID_COW, DOMID_INVALID, DOMID_IDLE};

    return one_in(8) ? random_word() & 0xffff : PICK(domids);
}

unsigned random_count(void)
{
    return one_in(16) ? random_value() : random_below(6);
}
