/* From the first C function to the guest's own main(). */
#include <pv/console.h>
#include <pv/events.h>
#include <pv/guest.h>
#include <pv/mm.h>
#include <pv/traps.h>
#include <pv/vcpu.h>

struct start_info *start_info; /* set by _start */
void *boot_stack_top;          /* likewise */

_Noreturn void guest_start(void);

/* The console comes first, so that all the rest can say what went wrong; then what tells one vcpu from another. */
_Noreturn void guest_start(void)
{
    console_init();
    vcpu_init();
    traps_init();
    mm_init();
    events_init();
    main((const char *)start_info->cmd_line);
    poweroff();
}

bool guest_is_privileged(void)
{
    return start_info->flags & SIF_INITDOMAIN;
}
