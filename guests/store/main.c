/*
 * store: a domain reads, writes and watches its keys in xenstore, alone and in transactions, and keeps to its own.
 *
 * Expect: exit 0
 * Expect-output: domain 1, store
 * Expect-output: PASS store
 */
#include <pv/console.h>
#include <pv/guest.h>
#include <pv/hypercall.h>
#include <pv/store.h>
#include <pv/text.h>

static void expect(const char *what, long got, long expected)
{
    if (got != expected)
        fail("%s gives %ld, not %ld", what, got, expected);
}

static void expect_value(const char *path, uint32_t tx, const char *expected)
{
    char value[64];

    if (store_read(tx, path, value, sizeof(value)) < 0 || strcmp(value, expected))
        fail("%s is not \"%s\"", path, expected);
}

static void expect_event(const char *path, const char *token)
{
    const char *event = store_event();

    if (strcmp(event, path) || strcmp(event + strlen(event) + 1, token))
        fail("the event is %s, %s and not %s, %s", event, event + strlen(event) + 1, path, token);
}

static void keys(void)
{
    char names[64];

    expect("a write", store_write(0, "data/a/b", "one"), 3);
    expect_value("data/a/b", 0, "one");
    expect_value("data/a", 0, "");
    expect("a directory", store_request(XS_DIRECTORY, 0, "data/a", 7, names, sizeof(names)), 2);
    expect("a key that is not there", store_read(0, "data/c", NULL, 0), -XEN_ENOENT);
    expect("a bad path", store_read(0, "data//c", NULL, 0), -XEN_EINVAL);
    expect("a removal", store_remove(0, "data/a"), 3);
    expect("a key that was removed", store_read(0, "data/a/b", NULL, 0), -XEN_ENOENT);
    expect("another domain's key", store_write(0, "/local/domain/0/name", "mine"), -XEN_EACCES);
    expect("a key of its own that it may only read", store_write(0, "name", "renamed"), -XEN_EACCES);
    expect("a request of domain 0's", store_request(XS_RELEASE, 0, "1", 2, NULL, 0), -XEN_EACCES);
    expect("a request that is none", store_request(99, 0, "", 0, NULL, 0), -XEN_ENOSYS);
}

static void watches(void)
{
    expect("a watch", store_watch("data", "token"), 3);
    expect_event("data", "token");
    expect("the same watch", store_watch("data", "token"), -XEN_EEXIST);
    store_write(0, "data/x/y", "1");
    expect_event("data/x/y", "token");
    store_write(0, "attr/z", "1");
    store_remove(0, "data/x");
    expect_event("data/x", "token");
    if (store_has_event())
        fail("there is an event too many");
}

static void transactions(void)
{
    uint32_t tx = store_begin(), other;

    store_write(tx, "data/t", "new");
    expect_value("data/t", tx, "new");
    expect("what a transaction has not committed", store_read(0, "data/t", NULL, 0), -XEN_ENOENT);
    if (store_has_event() || !store_commit(tx))
        fail("a transaction is not isolated, or fails");
    expect_value("data/t", 0, "new");
    expect_event("data/t", "token");

    tx = store_begin();
    other = store_begin();
    expect_value("data/t", tx, "new");
    store_write(other, "data/t", "newer");
    store_write(tx, "data/u", "?");
    if (!store_commit(other) || store_commit(tx))
        fail("of two transactions the first is to win");
    expect_value("data/t", 0, "newer");
    expect("what was not committed", store_read(0, "data/u", NULL, 0), -XEN_ENOENT);
    expect_event("data/t", "token");
    expect("the end of the watch", store_unwatch("data", "token"), 3);
}

/* Longer than the ring, in either direction. */
static void long_values(void)
{
    static char value[2000], again[2001];

    for (unsigned i = 0; i < sizeof(value) - 1; i++)
        value[i] = 'a' + i % 26;
    expect("a long value", store_write(0, "data/long", value), 3);
    expect("its length", store_read(0, "data/long", again, sizeof(again)), sizeof(value) - 1);
    if (strcmp(value, again))
        fail("a long value has changed");
}

void main(const char *command_line)
{
    char name[64];

    (void)command_line;
    store_read(0, "name", name, sizeof(name));
    printk("domain %lu, %s\n", store_number("domid"), name);
    keys();
    watches();
    transactions();
    long_values();
    printk("PASS store\n");
}
