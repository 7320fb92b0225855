/* What programs are written against: system calls, and output that is worth having. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "../../abi.h"

#include <pv/text.h>

int main(int argc, char *argv[]);

_Noreturn void exit(int status);
long write(const char *text, unsigned long length);
int spawn(const char *path, char *const argv[]);
int wait(int pid, int *status);
void sleep(unsigned milliseconds);
int getpid(void);
int kill(int pid);
void yield(void);
long trace(enum trace_op op, int pid, unsigned long address, unsigned long data);
long read_file(const char *path, unsigned long offset, void *buffer, unsigned long length);
int fork(void);
int exec(const char *path, char *const argv[]);

/* One write for at most 256 bytes, so that lines of several processes do not mix. */
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);

#endif
