/*
 * pong: a domain maps the page that another one, ping, grants to it, and answers each of its notifications.
 *
 * Beside that it tries what it must not do with the grants of ping: write to what is read-only, map what was not
 * granted to it or is not any more, make page table entries for ping's frames by itself. Alone on its machine it gives
 * up. The command line is the number of the domain that runs ping, if it is not domain 1.
 *
 * Expect: exit 3
 * Expect-output: FAIL: nobody is there: start ping as another domain of the machine
 */
#include "../ping/protocol.h"

#include <pv/grants.h>
#include <pv/guest.h>
#include <pv/mm.h>

static struct shared_page *shared;
static domid_t ping;
static unsigned port;
static volatile unsigned news;
static uint8_t *window, *own; /* a page for the read-only mapping, and one of this domain's */
static struct mapping readonly;

static void notified(unsigned from, struct regs *regs)
{
    (void)from;
    (void)regs;
    news++;
}

static struct message *next_message(uint32_t number)
{
    struct message *message = &shared->to_pong;

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

/* Waits for ping's keys, and reads the number in one of them. */
static unsigned offered(const char *name, uint64_t deadline_ns)
{
    static char path[64];
    char value[16];
    size_t length = strlen("/local/domain/");

    copy_text(path, "/local/domain/", sizeof(path));
    store_printf(0, "data/peer", "%u", ping);
    store_read(0, "data/peer", path + length, 8);
    copy_text(path + strlen(path), "/data/ping/", 16);
    copy_text(path + strlen(path), name, 16);
    store_watch(path, "ping");
    while (store_read(0, path, value, sizeof(value)) <= 0) {
        event_clear(start_info->store_evtchn); /* the answer's; that of an event comes after it */
        if (!store_has_event())
            wait_at_first(start_info->store_evtchn, deadline_ns, "ping");
        while (store_has_event())
            store_event();
    }
    store_unwatch(path, "ping");
    return parse_number(value);
}

static void bind_port(unsigned remote_port)
{
    struct evtchn_bind_interdomain bind = {.remote_dom = ping, .remote_port = remote_port};

    expect("bind_interdomain", hypercall_event_channel_op(EVTCHNOP_bind_interdomain, &bind), 0);
    port = bind.local_port;
    expect("binding the same port again", hypercall_event_channel_op(EVTCHNOP_bind_interdomain, &bind), -XEN_EINVAL);
    event_handle(port, notified);
    event_unmask(port);
}

/* What is granted read-only is read, and nothing else. */
static void try_read_only(grant_ref_t ref)
{
    expect("mapping a read-only grant to write", grant_map(ping, ref, window, false).status, GNTST_general_error);
    expect("mapping the grant of ping's console", grant_map(ping, 0, window, true).status, GNTST_general_error);
    expect("mapping what was never granted", grant_map(ping, 500, window, true).status, GNTST_general_error);
    expect("mapping beyond the table", grant_map(ping, 512, window, true).status, GNTST_bad_gntref);
    expect("mapping of a domain that is not there", grant_map(77, ref, window, true).status, GNTST_bad_domain);
    readonly = grant_map(ping, ref, window, true);
    expect("mapping a read-only grant", readonly.status, GNTST_okay);
    for (unsigned i = 0; i < PAGE_SIZE; i++)
        if (window[i] != PATTERN)
            fail("byte %u of the read-only page is %x", i, window[i]);
    expect("making the mapping writable", kernel_map(window, readonly.mfn, PROT_READ | PROT_WRITE), -XEN_EBUSY);
    expect("mapping the frame by a page table entry", kernel_map(own, readonly.mfn, PROT_READ), -XEN_EBUSY);
    expect("unmapping it elsewhere", grant_unmap(own, readonly.handle), GNTST_general_error);
    expect("unmapping what is not mapped", grant_unmap(window, 99), GNTST_bad_handle);
    expect("copying from it", grant_copy_from(ping, ref, own, PAGE_SIZE), GNTST_okay);
    expect("what was copied", memcmp(own, window, PAGE_SIZE), 0);
    expect("copying to it", grant_copy_to(ping, ref, own, PAGE_SIZE), GNTST_general_error);
}

static void try_what_is_gone(grant_ref_t ref)
{
    expect("mapping a grant that has ended", grant_map(ping, ref, window, true).status, GNTST_general_error);
    expect("copying from it", grant_copy_from(ping, ref, own, 1), GNTST_general_error);
}

/* Answers one message; false if it was the last. */
static bool serve(uint32_t number)
{
    static struct message reply;
    const struct message *message = next_message(number);
    const unsigned size = sizeof(reply.bytes);

    switch (message->kind) {
    case DATA:
        for (unsigned i = 0; i < size; i++)
            reply.bytes[i] = message->bytes[size - 1 - i];
        break;
    case READ_ONLY:
        try_read_only(message->ref);
        break;
    case COPY:
        expect("copying to a page of ping's", grant_copy_to(ping, message->ref, own, PAGE_SIZE / 2), GNTST_okay);
        break;
    case UNMAP:
        expect("unmapping", grant_unmap(window, readonly.handle), GNTST_okay);
        expect("unmapping again", grant_unmap(window, readonly.handle), GNTST_bad_handle);
        break;
    case GONE:
        try_what_is_gone(message->ref);
        break;
    case BYE:
        break;
    default:
        fail("message %u is of kind %u", number, message->kind);
    }
    reply.number = number;
    reply.kind = message->kind;
    post(&shared->to_ping, &reply, port);
    return reply.kind != BYE;
}

void main(const char *command_line)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    struct message hello = {.number = FIRST, .kind = HELLO};
    struct mapping mapping;
    unsigned remote_port, number = FIRST + 1;
    grant_ref_t ref;

    window = page_alloc();
    own = page_alloc();
    shared = page_alloc();
    ping = other_domain(command_line);
    remote_port = offered("event-channel", deadline_ns);
    ref = offered("ring-ref", deadline_ns);
    mapping = grant_map(ping, ref, shared, false);
    expect("mapping the shared page", mapping.status, GNTST_okay);
    bind_port(remote_port);
    upcalls_on();
    post(&shared->to_ping, &hello, port);
    while (serve(number))
        number++;
    printk("%u messages answered\n", number - FIRST);
    expect("unmapping the shared page", grant_unmap(shared, mapping.handle), GNTST_okay);
    event_close(port);
    printk("PASS pong\n");
}
