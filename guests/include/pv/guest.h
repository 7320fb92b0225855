/* What a guest provides, and what it may ask about itself. */
#ifndef PV_GUEST_H
#define PV_GUEST_H

#include <stdbool.h>

/* The guest. Traps and memory are set up, all event ports and upcalls masked. To return is to power off. */
void main(const char *command_line);

/* True if the domain runs the machine: it has no rings then, and console_io is its console. */
bool guest_is_privileged(void);

#endif
