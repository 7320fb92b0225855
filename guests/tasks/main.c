/*
 * tasks: a small kernel runs processes in address spaces of their own; one of them debugs another.
 *
 * The programs are ELF files in the module, an archive. The first process, init, starts all others and compares how
 * they end: two counters share the frames of one program; spin would run for ever but is preempted, and killed; fault
 * writes to address 0 and dies of it; forker makes a copy of itself that becomes another program; and debugger, a
 * debugger inside the guest, plants int3 in debuggee, is told of each hit by the kernel, and lets it run on unharmed.
 *
 * Module: tasks.archive
 * Expect: exit 0
 * Expect-output: debugger: hit 5 at step
 * Expect-output: signal 11, vector 14
 * Expect-output: init: all ended as they should
 * Expect-output: PASS tasks
 *
 * Append: init=/bin/fault
 * Expect: exit 3
 * Expect-output: FAIL: the first process ended with status 139
 */
#include "kernel.h"

#include <pv/console.h>
#include <pv/guest.h>
#include <pv/text.h>

void main(const char *command_line)
{
    const char *first = strncmp(command_line, "init=", 5) ? "/bin/init" : command_line + 5;
    struct task *init = task_new(NULL);
    char argv[1][32];

    traps_to_tasks();
    schedule_init();
    copy_text(argv[0], first, sizeof(argv[0]));
    if (task_load(init, first, 1, argv))
        fail("no program %s in the module", first);
    task_spawned(NULL, init);
    schedule();
}
