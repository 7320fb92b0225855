/* What the parts of the guest share. */
#ifndef SMP_H
#define SMP_H

#include <pv/vcpu.h>

extern unsigned nr_vcpus;

/* Says what was found if it is not what was expected, and remembers that something was wrong. */
void check(const char *what, long got, long expected);
/* Waits until all vcpus are here. */
void meet(void);

/* calls.c: messages from vcpu to vcpu. */

/* Binds the calling vcpu's ports for both. */
void calls_init(void);
/* An interrupt and nothing else: how many a vcpu has had is in interrupts[]. */
void interrupt(unsigned vcpu);
extern volatile unsigned interrupts[NR_VCPUS];
/* Has `vcpu` call function(argument), waits, and returns what it gave. */
long call_on(unsigned vcpu, long (*function)(long argument), long argument);

/* steps.c: each is executed by all vcpus at the same time. */
extern const struct step {
    const char *text;
    void (*run)(void);
} steps[];
extern const unsigned nr_steps;

#endif
