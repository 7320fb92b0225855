/* The console, and the three ways in which a guest ends. */
#ifndef PV_CONSOLE_H
#define PV_CONSOLE_H

#include <stddef.h>

void console_init(void);
/* Writes all of `text`, waiting for room in the ring if need be. */
void console_write(const char *text, size_t length);
/* Formats at most 256 bytes; see pv/text.h for what the format may hold. */
__attribute__((format(printf, 1, 2))) void printk(const char *format, ...);

/* Powers the domain off: the run ends well. */
_Noreturn void poweroff(void);
/* Shuts down with reason SHUTDOWN_crash: the run ends badly. */
_Noreturn void crash(void);
/* Prints "FAIL: " and the text, and crashes. */
__attribute__((format(printf, 1, 2))) _Noreturn void fail(const char *format, ...);

#endif
