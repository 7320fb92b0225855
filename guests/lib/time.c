#include <pv/events.h>
#include <pv/time.h>
#include <pv/vcpu.h>

/* Xen makes `version` odd while it changes the record; the TSC is scaled by a shift and a 32.32 fraction. */
uint64_t now_ns(void)
{
    const volatile struct vcpu_time_info *t = &this_vcpu()->info->time;
    uint32_t version, low, high;
    uint64_t now;

    do {
        version = t->version;
        __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
        now = ((uint64_t)high << 32 | low) - t->tsc_timestamp;
        now = t->tsc_shift < 0 ? now >> -t->tsc_shift : now << t->tsc_shift;
        now = (uint64_t)(((unsigned __int128)now * t->tsc_to_system_mul) >> 32) + t->system_time;
        __asm__ volatile("" ::: "memory");
    } while (version & 1 || version != t->version);
    return now;
}
