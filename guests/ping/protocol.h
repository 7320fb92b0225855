/*
 * What ping and pong say to each other.
 *
 * ping has a page with a message in each direction, granted to pong, and a port that pong may bind. It writes both into
 * xenstore, below its own data/ping, where pong may read them. A message is written, then the other is notified: an
 * event comes at any moment and says only that there is something new. The answer to message N has the number N.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/store.h>
#include <pv/text.h>
#include <pv/time.h>

#define PATIENCE_NS (5000 * NS_PER_MS) /* how long the other one is waited for in the beginning */
#define FIRST 1 /* number of the first message, which is a HELLO */
#define PATTERN 0xa5                   /* in each byte of the page that pong may only read */

enum kind {
    HELLO,     /* from pong: it has mapped the page */
    DATA,      /* bytes; the answer has them in reverse order */
    READ_ONLY, /* ref: a page that is granted read-only */
    COPY,      /* ref: a page that pong never maps, but copies to */
    UNMAP,     /* pong lets go of the read-only page */
    GONE,      /* ref: the grant of before, which has ended meanwhile */
    BYE,       /* pong lets go of everything */
};

struct message {
    uint32_t number;
    uint32_t kind;
    uint32_t ref;
    uint32_t checksum; /* of the rest */
    uint8_t bytes[1024];
};

struct shared_page {
    struct message to_pong, to_ping;
};

static inline uint32_t checksum(const struct message *message)
{
    uint32_t sum = message->number * 31 + message->kind * 7 + message->ref;

    for (unsigned i = 0; i < sizeof(message->bytes); i++)
        sum = sum * 33 + message->bytes[i];
    return sum;
}

/* The number goes last: whoever sees it sees all the rest. */
static inline void post(struct message *place, struct message *message, unsigned port)
{
    message->checksum = checksum(message);
    place->kind = message->kind;
    place->ref = message->ref;
    place->checksum = message->checksum;
    memcpy(place->bytes, message->bytes, sizeof(place->bytes));
    __atomic_store_n(&place->number, message->number, __ATOMIC_RELEASE);
    event_send(port);
}

/* The domain number of the other: as the command line says, or the other one of domains 1 and 2. */
static inline domid_t other_domain(const char *command_line)
{
    if (*command_line)
        return parse_number(command_line);
    return store_number("domid") == 1 ? 2 : 1;
}

/* Sleeps until a masked port is pending; fails after a while. */
static inline void wait_at_first(unsigned port, uint64_t deadline_ns, const char *whom)
{
    evtchn_port_t ports[1] = {port};
    struct sched_poll poll = {.nr_ports = 1, .timeout = deadline_ns};

    set_xen_guest_handle(poll.ports, ports);
    while (!event_pending(port)) {
        if (now_ns() >= deadline_ns)
            fail("nobody is there: start %s as another domain of the machine", whom);
        hypercall_sched_op(SCHEDOP_poll, &poll);
    }
    event_clear(port);
}

static inline void expect(const char *what, long got, long expected)
{
    if (got != expected)
        fail("%s gives %ld, not %ld", what, got, expected);
}

#endif
