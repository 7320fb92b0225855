#include <pv/console.h>
#include <pv/events.h>
#include <pv/hypercall.h>
#include <pv/mm.h>
#include <pv/store.h>
#include <pv/text.h>

#define NR_EVENTS 16 /* kept at most */

static struct xsd_sockmsg header;            /* of the answer */
static char answer_bytes[XENSTORE_PAYLOAD_MAX]; /* its payload */
static char events[NR_EVENTS][256];
static unsigned first_event, nr_events;

static volatile struct xenstore_domain_interface *ring(void)
{
    return mfn_to_va(start_info->store_mfn);
}

static void notify(void)
{
    event_send(start_info->store_evtchn);
}

static void put(const void *data, size_t length)
{
    volatile struct xenstore_domain_interface *r = ring();
    const char *from = data;

    while (length) {
        uint32_t prod = r->req_prod;

        if (prod - r->req_cons == XENSTORE_RING_SIZE) {
            event_wait(start_info->store_evtchn);
            continue;
        }
        for (; length && prod - r->req_cons < XENSTORE_RING_SIZE; length--)
            r->req[MASK_XENSTORE_IDX(prod++)] = *from++;
        __asm__ volatile("" ::: "memory"); /* the bytes are there before the index says so */
        r->req_prod = prod;
        notify();
    }
}

static void get(void *data, size_t length)
{
    volatile struct xenstore_domain_interface *r = ring();
    char *to = data;

    while (length) {
        uint32_t cons = r->rsp_cons;

        if (cons == r->rsp_prod) {
            event_wait(start_info->store_evtchn);
            continue;
        }
        for (; length && cons != r->rsp_prod; length--)
            *to++ = r->rsp[MASK_XENSTORE_IDX(cons++)];
        r->rsp_cons = cons;
        notify();
    }
}

/* The next message; an event is put aside. */
static void receive(void)
{
    get(&header, sizeof(header));
    if (header.len > sizeof(answer_bytes))
        fail("the store sends %u bytes", header.len);
    get(answer_bytes, header.len);
    if (header.type != XS_WATCH_EVENT)
        return;
    if (nr_events == NR_EVENTS || header.len > sizeof(events[0]))
        fail("too many or too long events of watches");
    memcpy(events[(first_event + nr_events++) % NR_EVENTS], answer_bytes, header.len);
}

static long errno_of(const char *name)
{
    static const struct {
        const char *name;
        long number;
    } table[] = {
        {"EINVAL", XEN_EINVAL}, {"EACCES", XEN_EACCES}, {"EEXIST", XEN_EEXIST}, {"EISDIR", XEN_EISDIR},
        {"ENOENT", XEN_ENOENT}, {"ENOMEM", XEN_ENOMEM}, {"ENOSPC", XEN_ENOSPC}, {"EIO", XEN_EIO},
        {"ENOTEMPTY", XEN_ENOTEMPTY}, {"ENOSYS", XEN_ENOSYS}, {"EROFS", XEN_EROFS}, {"EBUSY", XEN_EBUSY},
        {"EAGAIN", XEN_EAGAIN}, {"EISCONN", XEN_EISCONN}, {"E2BIG", XEN_E2BIG}, {"EPERM", XEN_EPERM},
    };

    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (!strcmp(name, table[i].name))
            return table[i].number;
    fail("the store answers with the error %s", name);
}

long store_request(unsigned type, uint32_t tx, const void *payload, size_t length, char *answer, size_t size)
{
    static uint32_t req_id;
    struct xsd_sockmsg request = {.type = type, .req_id = ++req_id, .tx_id = tx, .len = length};
    size_t kept;

    put(&request, sizeof(request));
    put(payload, length);
    do
        receive();
    while (header.type == XS_WATCH_EVENT);
    if (header.req_id != req_id || header.tx_id != tx)
        fail("the store answers request %u of transaction %u", header.req_id, header.tx_id);
    if (header.type == XS_ERROR)
        return -errno_of(answer_bytes);
    if (header.type != type)
        fail("the store answers a request of type %u with one of type %u", type, header.type);
    if (size) {
        kept = header.len < size ? header.len : size - 1;
        memcpy(answer, answer_bytes, kept);
        answer[kept] = 0;
    }
    return header.len;
}

/* A request whose payload is one or two strings with their NULs; the second may lack its own. */
static long ask(unsigned type, uint32_t tx, const char *first, const char *second, bool nul, char *answer, size_t size)
{
    static char payload[XENSTORE_PAYLOAD_MAX];
    size_t length = strlen(first) + 1, more = second ? strlen(second) + nul : 0;

    if (length + more > sizeof(payload))
        fail("a request of %lu bytes", length + more);
    memcpy(payload, first, length);
    memcpy(payload + length, second, more);
    return store_request(type, tx, payload, length + more, answer, size);
}

long store_read(uint32_t tx, const char *path, char *value, size_t size)
{
    return ask(XS_READ, tx, path, NULL, false, value, size);
}

unsigned long store_number(const char *path)
{
    char value[32];

    if (store_read(0, path, value, sizeof(value)) < 0)
        fail("there is no key %s", path);
    return parse_number(value);
}

long store_write(uint32_t tx, const char *path, const char *value)
{
    return ask(XS_WRITE, tx, path, value, false, NULL, 0);
}

long store_printf(uint32_t tx, const char *path, const char *format, ...)
{
    char value[128];
    va_list args;

    va_start(args, format);
    format_text(value, sizeof(value), format, args);
    va_end(args);
    return store_write(tx, path, value);
}

long store_remove(uint32_t tx, const char *path)
{
    return ask(XS_RM, tx, path, NULL, false, NULL, 0);
}

uint32_t store_begin(void)
{
    char number[16];

    if (ask(XS_TRANSACTION_START, 0, "", NULL, false, number, sizeof(number)) < 0)
        fail("no transaction can be started");
    return parse_number(number);
}

bool store_commit(uint32_t tx)
{
    long result = ask(XS_TRANSACTION_END, tx, "T", NULL, false, NULL, 0);

    if (result < 0 && result != -XEN_EAGAIN)
        fail("a transaction ends with error %ld", result);
    return result >= 0;
}

long store_watch(const char *path, const char *token)
{
    return ask(XS_WATCH, 0, path, token, true, NULL, 0);
}

long store_unwatch(const char *path, const char *token)
{
    return ask(XS_UNWATCH, 0, path, token, true, NULL, 0);
}

bool store_has_event(void)
{
    while (!nr_events && ring()->rsp_prod != ring()->rsp_cons)
        receive();
    return nr_events;
}

const char *store_event(void)
{
    const char *event;

    while (!nr_events)
        receive();
    event = events[first_event];
    first_event = (first_event + 1) % NR_EVENTS;
    nr_events--;
    return event;
}
