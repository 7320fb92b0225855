/* The few functions on memory and text that kernel and programs need; gcc itself calls the first four. */
#ifndef PV_TEXT_H
#define PV_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);
/* Copies at most size - 1 characters and always ends `to` with a NUL. */
void copy_text(char *to, const char *from, size_t size);
/* A decimal number; stops at the first other character. */
unsigned long parse_number(const char *text);
/* %s %c %d %u %x %p %% with l, a width, and flags 0 and -. Returns the length, less than `size`. */
size_t format_text(char *to, size_t size, const char *format, va_list args);

#endif
