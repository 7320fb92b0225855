/*
 * disk: a driver for a virtual disk reads, writes, is refused what is wrong, and connects anew.
 *
 * The disk's frontend finds it in xenstore, grants its ring and its pages to the backend's domain and moves sectors.
 * Each sector of the disk holds its own number, as 64 numbers of 64 bits.
 *
 * Disk: 1024 sectors
 * Expect: exit 0
 * Expect-output: 1024 sectors
 * Expect-output: PASS disk
 */
#include "frontend.h"

#include <pv/console.h>
#include <pv/events.h>
#include <pv/grants.h>
#include <pv/guest.h>
#include <pv/mm.h>
#include <pv/text.h>

#define NR_PAGES BLKIF_MAX_SEGMENTS_PER_REQUEST
#define SECTORS_PER_PAGE (PAGE_SIZE / SECTOR_SIZE)
#define WORDS (SECTOR_SIZE / sizeof(uint64_t))

static struct disk disk;
static uint64_t *pages[NR_PAGES];
static struct part whole[NR_PAGES]; /* all of each page */

static void expect(const char *what, int status, int expected)
{
    if (status != expected)
        fail("%s gives status %d, not %d", what, status, expected);
}

/* Sector `at` of page `page` holds number `number` throughout. */
static bool holds(unsigned page, unsigned at, uint64_t number)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (pages[page][at * WORDS + i] != number)
            return false;
    return true;
}

static void fill(unsigned page, uint64_t number)
{
    for (unsigned i = 0; i < PAGE_SIZE / sizeof(uint64_t); i++)
        pages[page][i] = number;
}

static void reads(void)
{
    expect("a read of 88 sectors", disk_do(&disk, BLKIF_OP_READ, 100, whole, NR_PAGES), BLKIF_RSP_OKAY);
    for (unsigned i = 0; i < NR_PAGES * SECTORS_PER_PAGE; i++)
        if (!holds(i / SECTORS_PER_PAGE, i % SECTORS_PER_PAGE, 100 + i))
            fail("sector %u has been read wrong", 100 + i);

    struct part parts[] = {{whole[0].ref, 7, 7}, {whole[1].ref, 2, 3}};

    fill(0, -1);
    fill(1, -1);
    expect("a read of parts", disk_do(&disk, BLKIF_OP_READ, disk.nr_sectors - 3, parts, 2), BLKIF_RSP_OKAY);
    if (!holds(0, 7, disk.nr_sectors - 3) || !holds(1, 2, disk.nr_sectors - 2) || !holds(1, 3, disk.nr_sectors - 1))
        fail("parts of pages have been read wrong");
    if (!holds(0, 6, -1) || !holds(1, 1, -1) || !holds(1, 4, -1))
        fail("more than the parts has been written to");
}

static void writes(void)
{
    struct part one = {whole[0].ref, 0, 0}, other = {whole[1].ref, 0, 2};

    fill(0, 0xabcdef);
    expect("a write", disk_do(&disk, BLKIF_OP_WRITE, 11, &one, 1), BLKIF_RSP_OKAY);
    expect("a flush", disk_do(&disk, BLKIF_OP_FLUSH_DISKCACHE, 0, NULL, 0), BLKIF_RSP_OKAY);
    fill(0, 0x123456);
    expect("a barrier", disk_do(&disk, BLKIF_OP_WRITE_BARRIER, 12, &one, 1), BLKIF_RSP_OKAY);
    expect("a read", disk_do(&disk, BLKIF_OP_READ, 10, &other, 1), BLKIF_RSP_OKAY);
    if (!holds(1, 0, 10) || !holds(1, 1, 0xabcdef) || !holds(1, 2, 0x123456))
        fail("what was written is not what is read");
}

static void refusals(void)
{
    uint64_t end = disk.nr_sectors;
    struct part one = {whole[0].ref, 0, 0}, backwards = {whole[0].ref, 3, 2}, beyond = {whole[0].ref, 0, 8};
    struct part nobodys = {whole[NR_PAGES - 1].ref + 50, 0, 0}, outside = {1 << 20, 0, 0}, protected, ended;

    fill(0, 77);
    expect("a read at the end", disk_do(&disk, BLKIF_OP_READ, end, &one, 1), BLKIF_RSP_ERROR);
    expect("a read over the end", disk_do(&disk, BLKIF_OP_READ, end - 7, whole, 1), BLKIF_RSP_ERROR);
    expect("a read of nowhere", disk_do(&disk, BLKIF_OP_READ, -1, &one, 1), BLKIF_RSP_ERROR);
    expect("a write over the end", disk_do(&disk, BLKIF_OP_WRITE, end - 7, whole, 1), BLKIF_RSP_ERROR);
    expect("a read of nothing", disk_do(&disk, BLKIF_OP_READ, 0, NULL, 0), BLKIF_RSP_ERROR);
    expect("a read with 12 segments", disk_do(&disk, BLKIF_OP_READ, 0, whole, 12), BLKIF_RSP_ERROR);
    expect("a segment that ends before it begins", disk_do(&disk, BLKIF_OP_READ, 0, &backwards, 1), BLKIF_RSP_ERROR);
    expect("a segment beyond its page", disk_do(&disk, BLKIF_OP_READ, 0, &beyond, 1), BLKIF_RSP_ERROR);
    expect("a grant that is none", disk_do(&disk, BLKIF_OP_READ, 0, &nobodys, 1), BLKIF_RSP_ERROR);
    expect("a grant beyond the table", disk_do(&disk, BLKIF_OP_READ, 0, &outside, 1), BLKIF_RSP_ERROR);

    protected = (struct part){grant_page(disk.domid, pages[0], true), 0, 0};
    expect("a read to a read-only grant", disk_do(&disk, BLKIF_OP_READ, 0, &protected, 1), BLKIF_RSP_ERROR);
    expect("a write from a read-only grant", disk_do(&disk, BLKIF_OP_WRITE, 20, &protected, 1), BLKIF_RSP_OKAY);
    if (!grant_end(protected.ref))
        fail("the backend keeps a page");
    ended = protected;
    expect("a grant that has ended", disk_do(&disk, BLKIF_OP_WRITE, 20, &ended, 1), BLKIF_RSP_ERROR);
    protected = (struct part){grant_page(disk.domid + 1, pages[0], false), 0, 0};
    expect("a grant for another domain", disk_do(&disk, BLKIF_OP_WRITE, 20, &protected, 1), BLKIF_RSP_ERROR);
    grant_end(protected.ref);

    expect("an unknown operation", disk_do(&disk, 200, 0, &one, 1), BLKIF_RSP_EOPNOTSUPP);
    if (!holds(0, 0, 77))
        fail("a refused request has written to a page");
}

static void many(void)
{
    struct part part = {whole[0].ref, 0, 0};

    for (unsigned i = 0; i < RING_SIZE(&disk.ring); i++)
        disk_put(&disk, 1000 + i, i % 3 ? BLKIF_OP_READ : BLKIF_OP_WRITE, 500 + i, &part, 1);
    disk_push(&disk);
    for (unsigned i = 0; i < RING_SIZE(&disk.ring); i++) {
        blkif_response_t response = disk_take(&disk);

        if (response.id < 1000 || response.id >= 1000 + RING_SIZE(&disk.ring) || response.status != BLKIF_RSP_OKAY)
            fail("one of many requests, %lu, has status %d", response.id, response.status);
    }
}

/* A producer that can't be: the backend stops, and starts again with a new ring. */
static void nonsense(void)
{
    disk.shared->req_prod = disk.ring.req_prod_pvt + RING_SIZE(&disk.ring) + 1;
    event_send(disk.port);
    if (RING_HAS_UNCONSUMED_RESPONSES(&disk.ring))
        fail("requests that are none have been answered");
}

static void again(void)
{
    struct part one = {whole[0].ref, 0, 0};

    disk_disconnect(&disk);
    disk_connect(&disk);
    expect("a read after connecting anew", disk_do(&disk, BLKIF_OP_READ, 11, &one, 1), BLKIF_RSP_OKAY);
    if (!holds(0, 0, 0xabcdef))
        fail("what was written is gone");
}

/* A ring that is not granted is refused; the next attempt succeeds. */
static void wrong_ring(void)
{
    disk_disconnect(&disk);
    disk_go(&disk, XenbusStateInitialised);
    disk_wait(&disk, XenbusStateClosing);
    disk_connect(&disk);
}

void main(const char *command_line)
{
    (void)command_line;
    grants_init();
    disk_find(&disk);
    disk_connect(&disk);
    printk("%s: %lu sectors, info %u\n", disk.backend, disk.nr_sectors, disk.info);
    for (unsigned i = 0; i < NR_PAGES; i++) {
        pages[i] = page_alloc();
        whole[i] = (struct part){grant_page(disk.domid, pages[i], false), 0, SECTORS_PER_PAGE - 1};
    }
    reads();
    writes();
    refusals();
    many();
    again();
    nonsense();
    again();
    wrong_ring();
    disk_disconnect(&disk);
    printk("PASS disk\n");
}
