/*
 * Virtual processors: each has a struct vcpu of its own, which its GS register leads to, and a kernel stack. (A guest
 * that starts none does not need GS for that, and may do with it what it likes.)
 *
 * Xen starts a domain on vcpu 0. The others exist, as many as the domain was given, but have no registers yet: the
 * kernel describes all of their state at once (VCPUOP_initialise), then takes them up.
 */
#ifndef PV_VCPU_H
#define PV_VCPU_H

#include <stdbool.h>
#include <stdint.h>

#include <xen/xen.h>
#include <xen/vcpu.h>

#define NR_VCPUS XEN_LEGACY_MAX_VCPUS /* those with a place in the shared info page */

struct vcpu {
    struct vcpu *self; /* at %gs:0 */
    unsigned id;
    volatile struct vcpu_info *info;
    unsigned long ports;   /* the event ports that notify it, a bit each */
    void (*main)(void);    /* what it runs; to return is to go down */
    void *stack_top;
};

extern struct vcpu vcpus[NR_VCPUS];
extern bool vcpus_are_many; /* vcpu_start() has been called */

static inline struct vcpu *this_vcpu(void)
{
    struct vcpu *self;

    if (!vcpus_are_many)
        return &vcpus[0];
    __asm__("mov %%gs:0, %0" : "=r"(self)); /* a vcpu does not turn into another: the compiler may keep the answer */
    return self;
}

/* Describes vcpu 0: before all else. */
void vcpu_init(void);
/* How many the domain has, started or not. */
unsigned vcpus_count(void);
/* Gives a vcpu its first state and takes it up: it calls `main`, with upcalls masked. Call it on vcpu 0. */
void vcpu_start(unsigned id, void (*main)(void));
/* Whether it is up. */
bool vcpu_is_up(unsigned id);
/* The calling vcpu stops here; it goes on when another takes it up again. */
void vcpu_down(void);
void vcpu_up(unsigned id);

/* While one waits for another, so that a processor with several threads gives them its time. */
static inline void relax(void)
{
    __asm__ volatile("pause" ::: "memory");
}

/* A ticket lock: who comes first is served first. */
struct spinlock {
    volatile uint32_t next, serving;
};

static inline void spin_lock(struct spinlock *lock)
{
    uint32_t ticket = __atomic_fetch_add(&lock->next, 1, __ATOMIC_SEQ_CST);

    while (lock->serving != ticket)
        relax();
    __asm__ volatile("" ::: "memory");
}

static inline void spin_unlock(struct spinlock *lock)
{
    __atomic_store_n(&lock->serving, lock->serving + 1, __ATOMIC_RELEASE);
}

#endif
