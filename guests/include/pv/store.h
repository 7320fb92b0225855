/*
 * Xenstore: the tree of keys that domains share, over a ring page. One request is under way at a time; its answer is
 * waited for. Events of watches are kept until they are asked for.
 *
 * A path without a slash in front is one of the domain's own keys. `tx` is a transaction, 0 for none. Functions return
 * 0 or more, or the negative errno of the store's answer.
 */
#ifndef PV_STORE_H
#define PV_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <xen/xen.h>

#include <xen/io/xs_wire.h>

/* Sends any request. The answer's first `size - 1` bytes go to `answer`, with a NUL; returns its length. */
long store_request(unsigned type, uint32_t tx, const void *payload, size_t length, char *answer, size_t size);

/* Reads a value, and ends it with a NUL; returns its length. */
long store_read(uint32_t tx, const char *path, char *value, size_t size);
/* Reads a value that is a number; fails if it is not there. */
unsigned long store_number(const char *path);
long store_write(uint32_t tx, const char *path, const char *value);
__attribute__((format(printf, 3, 4))) long store_printf(uint32_t tx, const char *path, const char *format, ...);
long store_remove(uint32_t tx, const char *path);

uint32_t store_begin(void);
/* False if another domain was faster: the transaction is to be done again. */
bool store_commit(uint32_t tx);

long store_watch(const char *path, const char *token);
long store_unwatch(const char *path, const char *token);
/* Waits for the next event: the path that changed and the token, each with a NUL, one after the other. */
const char *store_event(void);
/* Whether there is one. */
bool store_has_event(void);

#endif
