/*
 * fuzz: makes random hypercalls, all numbers and operations, with pointers into every kind of memory, and survives.
 *
 * The command line has the seed and how many calls are made: "seed=1 calls=20000", say. The same seed makes the same calls.
 * What the calls give is compared with nothing: that the guest goes on, and that Xen does, is the verdict. Memory that
 * they lost, pinned and mapped is given back now and then and at the end.
 *
 * Expect: exit 0
 * Expect-output: PASS fuzz
 *
 * Append: seed=2 calls=3000
 * Expect: exit 0
 * Expect-output: PASS fuzz
 */
#include "fuzz.h"

#include <pv/console.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/text.h>

#define RESET_EVERY 512
#define DEFAULT_CALLS 2000

static unsigned long option(const char *text, const char *name, unsigned long otherwise)
{
    size_t length = strlen(name);

    for (; *text; text++)
        if (!strncmp(text, name, length))
            return parse_number(text + length);
    return otherwise;
}

void main(const char *command_line)
{
    unsigned long seed = option(command_line, "seed=", 1);
    unsigned long calls = option(command_line, "calls=", DEFAULT_CALLS);
    unsigned long succeeded = 0, made = 0, last_reset = 0;
    uint64_t begin;

    random_seed(seed);
    memory_init();
    guard_init();
    begin = ticks();
    while (made < calls) {
        struct call call;
        long result;

        switch (random_below(32)) {
        case 0:
            make_batch(&call);
            break;
        case 1:
        case 2:
        case 3:
            prepare_table();
            continue;
        case 4:
            poke_table();
            continue;
        case 5:
            if (one_in(4)) {
                guarded_iret();
                made++;
            }
            continue;
        default:
            make_call(&call, false);
        }
        result = issue(&call);
        made += call.nr == __HYPERVISOR_multicall && !result ? call.args[1] : 1;
        succeeded += result >= 0;
        if (call.taken && result > 0)
            take_frames(call.taken, result);
        if (call.restore)
            guard_restore();
        if (made - last_reset >= RESET_EVERY) {
            last_reset = made;
            memory_reset();
        }
    }
    memory_release();
    guard_restore();
    printk("%lu calls, %lu succeeded, %lu faults survived, %lu ticks a call\n", made, succeeded, faults_survived,
           (ticks() - begin) / (made ? made : 1));
    printk("PASS fuzz\n");
}
