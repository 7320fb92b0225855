/*
 * ping: a domain grants a page to another one, pong, and the two notify each other: asynchronous events.
 *
 * It exchanges messages with checks of their order and contents, and then looks at the edges: a grant in use can't be
 * ended, one that was given back can; pong copies into a page that it has not mapped; a channel that pong closes is
 * unbound here, and notifications to it go nowhere. Alone on its machine it gives up. The command line is the number
 * of the domain that runs pong, if it is not domain 2.
 *
 * Expect: exit 3
 * Expect-output: FAIL: nobody is there: start pong as another domain of the machine
 */
#include "protocol.h"

#include <pv/grants.h>
#include <pv/guest.h>
#include <pv/mm.h>

#define NR_MESSAGES 200

static struct shared_page *shared;
static domid_t pong;
static unsigned port;
static uint32_t last = FIRST; /* number of the last message */
static volatile unsigned news;

static void notified(unsigned from, struct regs *regs)
{
    (void)from;
    (void)regs;
    news++;
}

/* Sleeps until the answer to message `number` is there; events may come early, or for nothing. */
static struct message *answer(uint32_t number)
{
    struct message *message = &shared->to_ping;

    while (__atomic_load_n(&message->number, __ATOMIC_ACQUIRE) != number) {
        upcalls_off();
        while (!news) {
            block();
            upcalls_off();
        }
        news = 0;
        upcalls_on();
    }
    if (message->checksum != checksum(message))
        fail("message %u was changed on its way", number);
    return message;
}

static struct message *ask(enum kind kind, grant_ref_t ref)
{
    struct message message = {.number = ++last, .kind = kind, .ref = ref};
    struct message *reply;

    for (unsigned i = 0; i < sizeof(message.bytes); i++)
        message.bytes[i] = message.number * 7 + i;
    post(&shared->to_pong, &message, port);
    reply = answer(message.number);
    if (reply->kind != kind)
        fail("message %u is answered by one of kind %u", message.number, reply->kind);
    return reply;
}

/* Appends a text and its NUL; returns where the next one goes. */
static char *append(char *to, const char *text)
{
    copy_text(to, text, 32);
    return to + strlen(to) + 1;
}

/* Keys that pong, and nobody else, may read. */
static void offer(grant_ref_t ref)
{
    char domid[8], permissions[96], *end;

    store_write(0, "data/ping", "");
    store_read(0, "domid", domid, sizeof(domid));
    end = append(permissions, "data/ping");
    *end = 'n';
    end = append(end + 1, domid);
    *end = 'r';
    store_printf(0, "data/ping/peer", "%u", pong);
    store_read(0, "data/ping/peer", domid, sizeof(domid));
    end = append(end + 1, domid);
    expect("XS_SET_PERMS", store_request(XS_SET_PERMS, 0, permissions, end - permissions, NULL, 0), 3);
    store_printf(0, "data/ping/ring-ref", "%u", ref);
    store_printf(0, "data/ping/event-channel", "%u", port);
}

static void exchange(void)
{
    for (unsigned n = 0; n < NR_MESSAGES; n++) {
        struct message *reply = ask(DATA, 0);

        for (unsigned i = 0; i < sizeof(reply->bytes); i++)
            if (reply->bytes[i] != (uint8_t)(last * 7 + sizeof(reply->bytes) - 1 - i))
                fail("byte %u of answer %u is wrong", i, last);
    }
    printk("%u messages there and back\n", NR_MESSAGES);
}

static void edges(grant_ref_t shared_ref)
{
    uint8_t *page = page_alloc(), *target = page_alloc();
    grant_ref_t readonly = grant_page(pong, page, true), copied = grant_page(pong, target, false);

    memset(page, PATTERN, PAGE_SIZE);
    expect("ending a grant that is mapped", grant_end(shared_ref), false);
    ask(READ_ONLY, readonly);
    expect("ending a grant that is mapped read-only", grant_end(readonly), false);
    ask(COPY, copied);
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        if (target[i] != (i < PAGE_SIZE / 2 ? PATTERN : 0))
            fail("byte %u of the page that pong copies to is %x", i, target[i]);
    expect("ending a grant that was only copied", grant_end(copied), true);
    ask(UNMAP, 0);
    expect("ending a grant that was unmapped", grant_end(readonly), true);
    ask(GONE, readonly);
    printk("grants end when they are not in use\n");
}

static void closing(grant_ref_t shared_ref)
{
    struct evtchn_status status = {.dom = DOMID_SELF, .port = port};
    struct evtchn_send send = {.port = port};

    expect("status", hypercall_event_channel_op(EVTCHNOP_status, &status), 0);
    expect("the port's status", status.status, EVTCHNSTAT_interdomain);
    expect("the far end's domain", status.u.interdomain.dom, pong);
    ask(BYE, 0);
    do {
        hypercall_sched_op(SCHEDOP_yield, NULL);
        hypercall_event_channel_op(EVTCHNOP_status, &status);
    } while (status.status == EVTCHNSTAT_interdomain);
    expect("the port's status after the far end's close", status.status, EVTCHNSTAT_unbound);
    expect("who may bind it", status.u.unbound.dom, pong);
    expect("a notification to nobody", hypercall_event_channel_op(EVTCHNOP_send, &send), 0);
    expect("ending the grant of the shared page", grant_end(shared_ref), true);
    event_close(port);
    printk("the channel is closed\n");
}

void main(const char *command_line)
{
    grant_ref_t ref;

    grants_init();
    shared = page_alloc();
    pong = other_domain(command_line);
    ref = grant_page(pong, shared, false);
    port = event_alloc(pong);
    offer(ref);
    wait_at_first(port, now_ns() + PATIENCE_NS, "pong");
    event_handle(port, notified);
    event_unmask(port);
    upcalls_on();
    expect("the first message", answer(FIRST)->kind, HELLO);
    exchange();
    edges(ref);
    closing(ref);
    printk("PASS ping\n");
}
