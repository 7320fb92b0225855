/* The domain's clock. */
#ifndef PV_TIME_H
#define PV_TIME_H

#include <stdint.h>

#define NS_PER_MS 1000000ul

/* Nanoseconds since the domain was started: the time that timer hypercalls count in. */
uint64_t now_ns(void);

#endif
