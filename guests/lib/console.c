/*
 * The console ring: a page shared with the console's other end. The guest writes characters at out_prod and notifies;
 * the other end takes them and moves out_cons. A full ring is waited for by yielding the processor.
 */
#include <pv/console.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/text.h>

#include <xen/io/console.h>

static struct xencons_interface *ring; /* NULL: use console_io */

static void notify(void)
{
    struct evtchn_send send = {.port = start_info->console.domU.evtchn};

    hypercall_event_channel_op(EVTCHNOP_send, &send);
}

void console_init(void)
{
    if (!guest_is_privileged() && start_info->console.domU.mfn)
        ring = mfn_to_va(start_info->console.domU.mfn);
}

static void ring_write(const char *text, size_t length)
{
    volatile struct xencons_interface *r = ring;

    while (length) {
        uint32_t cons = r->out_cons, prod = r->out_prod;

        while (length && prod - cons < sizeof(r->out)) {
            r->out[MASK_XENCONS_IDX(prod++, r->out)] = *text++;
            length--;
        }
        __asm__ volatile("" ::: "memory"); /* the characters are there before the index says so */
        r->out_prod = prod;
        notify();
        if (length)
            hypercall_sched_op(SCHEDOP_yield, NULL);
    }
}

void console_write(const char *text, size_t length)
{
    if (ring)
        ring_write(text, length);
    else
        hypercall_console_io(CONSOLEIO_write, length, text);
}

/* The last words must have been read before the domain is gone. */
static void console_drain(void)
{
    volatile struct xencons_interface *r = ring;

    while (r && r->out_cons != r->out_prod)
        hypercall_sched_op(SCHEDOP_yield, NULL);
}

void printk(const char *format, ...)
{
    char line[256];
    va_list args;

    va_start(args, format);
    console_write(line, format_text(line, sizeof(line), format, args));
    va_end(args);
}

static _Noreturn void shutdown(unsigned reason)
{
    struct sched_shutdown how = {.reason = reason};

    console_drain();
    for (;;)
        hypercall_sched_op(SCHEDOP_shutdown, &how);
}

void poweroff(void)
{
    shutdown(SHUTDOWN_poweroff);
}

void crash(void)
{
    shutdown(SHUTDOWN_crash);
}

void fail(const char *format, ...)
{
    char line[256];
    va_list args;

    va_start(args, format);
    format_text(line, sizeof(line), format, args);
    va_end(args);
    printk("FAIL: %s\n", line);
    crash();
}
