/* What the parts of this guest have in common. */
#ifndef CPU_H
#define CPU_H

#include <pv/mm.h>
#include <stdint.h>

/* Counts a check, and says so if it fails. */
void check(const char *what, uint64_t got, uint64_t expected);
/* Ends a group of checks with a line. */
void done(const char *what);
/* The last line; does not come back. */
_Noreturn void verdict(void);

/* Goes to user code of 32 bits, whose last trap calls verdict(). */
_Noreturn void compat_mode(const struct address_space *space);

#endif
