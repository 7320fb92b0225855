/* The guest's driver for one virtual disk: the frontend of a "vbd". */
#ifndef FRONTEND_H
#define FRONTEND_H

#include <stdbool.h>
#include <stdint.h>

#include <xen/xen.h>

/* What the rings of Xen's header need: stores and loads of this processor stay in order, those of the compiler must. */
#define xen_mb() __sync_synchronize()
#define xen_wmb() __asm__ volatile("" ::: "memory")

#include <xen/grant_table.h>
#include <xen/io/blkif.h>
#include <xen/io/xenbus.h>

#define SECTOR_SIZE 512

struct disk {
    char folder[64]; /* of the frontend in the store */
    char backend[64];
    domid_t domid; /* of the backend */
    blkif_sring_t *shared;
    blkif_front_ring_t ring;
    grant_ref_t ring_ref;
    unsigned port;
    unsigned long nr_sectors;
    unsigned info;
};

/* Part of a request: sectors `first` to `last` of a granted page. */
struct part {
    grant_ref_t ref;
    unsigned first, last;
};

/* Finds the first disk in the store; fails if there is none. */
void disk_find(struct disk *disk);
/* Makes a ring and a port, tells the backend of them and waits until it is connected. */
void disk_connect(struct disk *disk);
/* Waits for the backend to let go, and takes ring and port back. */
void disk_disconnect(struct disk *disk);

/* Puts a request into the ring; `id` comes back with its response. */
void disk_put(struct disk *disk, uint64_t id, unsigned operation, uint64_t sector, const struct part *parts, unsigned nr);
/* Tells the backend of all requests that have been put, if it wants to know. */
void disk_push(struct disk *disk);
/* The next response; waits for it. */
blkif_response_t disk_take(struct disk *disk);
/* One request and its status. */
int disk_do(struct disk *disk, unsigned operation, uint64_t sector, const struct part *parts, unsigned nr);

void disk_go(struct disk *disk, XenbusState state);
XenbusState disk_wait(struct disk *disk, XenbusState state);

#endif
