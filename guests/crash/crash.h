#ifndef CRASH_H
#define CRASH_H

/* Makes hypercalls with numbers and arguments that mean nothing, and returns if the domain survives them. */
void hypercall_garbage(void);

#endif
