/*
 * The two ends tell each other by the keys "state" how far they are. This one follows the backend by a watch.
 */
#include "frontend.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/grants.h>
#include <pv/mm.h>
#include <pv/store.h>
#include <pv/text.h>

#include <xen/io/protocols.h>

static const char *path_of(const char *folder, const char *name)
{
    static char path[2][128];
    static unsigned turn;
    size_t length = strlen(folder);

    turn ^= 1;
    copy_text(path[turn], folder, sizeof(path[turn]));
    path[turn][length] = '/';
    copy_text(path[turn] + length + 1, name, sizeof(path[turn]) - length - 1);
    return path[turn];
}

void disk_find(struct disk *disk)
{
    char names[64];

    if (store_request(XS_DIRECTORY, 0, "device/vbd", 11, names, sizeof(names)) <= 0)
        fail("there is no disk");
    copy_text(disk->folder, path_of("device/vbd", names), sizeof(disk->folder));
    if (store_read(0, path_of(disk->folder, "backend"), disk->backend, sizeof(disk->backend)) <= 0)
        fail("%s names no backend", disk->folder);
    disk->domid = store_number(path_of(disk->folder, "backend-id"));
    store_watch(path_of(disk->backend, "state"), "backend");
}

void disk_go(struct disk *disk, XenbusState state)
{
    if (store_printf(0, path_of(disk->folder, "state"), "%u", state) < 0)
        fail("the state can't be written");
}

XenbusState disk_wait(struct disk *disk, XenbusState state)
{
    const char *path = path_of(disk->backend, "state");
    XenbusState now;

    /* The state is read after each event: none can be missed. */
    while ((now = store_number(path)) != state)
        store_event();
    while (store_has_event())
        store_event();
    return now;
}

static void tell(struct disk *disk)
{
    uint32_t tx;

    do {
        tx = store_begin();
        store_printf(tx, path_of(disk->folder, "ring-ref"), "%u", disk->ring_ref);
        store_printf(tx, path_of(disk->folder, "event-channel"), "%u", disk->port);
        store_write(tx, path_of(disk->folder, "protocol"), XEN_IO_PROTO_ABI_X86_64);
    } while (!store_commit(tx));
}

void disk_connect(struct disk *disk)
{
    disk->shared = page_alloc();
    SHARED_RING_INIT(disk->shared);
    FRONT_RING_INIT(&disk->ring, disk->shared, PAGE_SIZE);
    disk->ring_ref = grant_page(disk->domid, disk->shared, false);
    disk->port = event_alloc(disk->domid);
    tell(disk);
    disk_go(disk, XenbusStateInitialised);
    disk_wait(disk, XenbusStateConnected);
    disk->nr_sectors = store_number(path_of(disk->backend, "sectors"));
    disk->info = store_number(path_of(disk->backend, "info"));
    if (store_number(path_of(disk->backend, "sector-size")) != SECTOR_SIZE)
        fail("a sector does not have %u bytes", SECTOR_SIZE);
    disk_go(disk, XenbusStateConnected);
}

void disk_disconnect(struct disk *disk)
{
    disk_go(disk, XenbusStateClosing);
    disk_wait(disk, XenbusStateClosing);
    disk_go(disk, XenbusStateClosed);
    disk_wait(disk, XenbusStateClosed);
    if (!grant_end(disk->ring_ref))
        fail("the backend is closed and uses the ring");
    event_close(disk->port);
    page_free(disk->shared);
    disk_go(disk, XenbusStateInitialising);
    disk_wait(disk, XenbusStateInitWait);
}

void disk_put(struct disk *disk, uint64_t id, unsigned operation, uint64_t sector, const struct part *parts, unsigned nr)
{
    blkif_request_t *request = RING_GET_REQUEST(&disk->ring, disk->ring.req_prod_pvt);

    *request = (blkif_request_t){.operation = operation, .nr_segments = nr, .id = id, .sector_number = sector};
    for (unsigned i = 0; i < nr && i < BLKIF_MAX_SEGMENTS_PER_REQUEST; i++) {
        request->seg[i].gref = parts[i].ref;
        request->seg[i].first_sect = parts[i].first;
        request->seg[i].last_sect = parts[i].last;
    }
    disk->ring.req_prod_pvt++;
}

void disk_push(struct disk *disk)
{
    int notify;

    RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(&disk->ring, notify);
    if (notify)
        event_send(disk->port);
}

blkif_response_t disk_take(struct disk *disk)
{
    blkif_response_t response;
    int more;

    while (!RING_HAS_UNCONSUMED_RESPONSES(&disk->ring)) {
        RING_FINAL_CHECK_FOR_RESPONSES(&disk->ring, more);
        if (!more)
            event_wait(disk->port);
    }
    RING_COPY_RESPONSE(&disk->ring, disk->ring.rsp_cons, &response);
    disk->ring.rsp_cons++;
    return response;
}

int disk_do(struct disk *disk, unsigned operation, uint64_t sector, const struct part *parts, unsigned nr)
{
    static uint64_t id;
    blkif_response_t response;

    disk_put(disk, ++id, operation, sector, parts, nr);
    disk_push(disk);
    response = disk_take(disk);
    if (response.id != id || response.operation != operation)
        fail("request %lu, operation %u, is answered by %lu, %u", id, operation, response.id, response.operation);
    return response.status;
}
