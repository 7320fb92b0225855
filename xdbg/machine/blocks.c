/*
 * What each translated block was translated from.
 *
 * The engine does not notice code that is rewritten through another mapping of its frame, or by the hypervisor. So the first
 * time that a block runs in an epoch (an entry of the guest), its bytes in RAM are compared with a copy taken when the engine
 * translated it. When they differ, the translation is removed and made again.
 *
 * A block is known by its machine address, size, (if it crosses a page) the machine address of its second page, and whether it is
 * 32-bit code: those and the bytes determine its instructions. The engine announces each translation (the edge hook), so a block without
 * a copy, or one whose copy is older than its translation, is told from a stale one. Nothing is forgotten singly: when the
 * store is full, the copies and the engine's translations go together.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"

enum { BUCKETS = 1 << 16, UC_PROT_EXEC = 4 };
static const uint64_t ONE_PAGE = ~(uint64_t)0;
/* UC_CTL_TB_REMOVE_CACHE, two arguments, write */
static const unsigned REMOVE_CACHE = 9 | 2 << 26 | 1u << 30;
/* UC_CTL_TB_REQUEST_CACHE, two arguments, read and write */
static const unsigned REQUEST_CACHE = 8 | 2 << 26 | 3u << 30;

bool blocks_create(struct clock *c)
{
    void *arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    c->arena = arena == MAP_FAILED ? NULL : arena;
    c->buckets = calloc(BUCKETS, sizeof(*c->buckets));
    c->frame_has_code = calloc(c->engine.ram_size / PAGE, 1);
    c->frame_is_watched = calloc(c->engine.ram_size / PAGE, 1);
    return c->arena && c->buckets && c->frame_has_code && c->frame_is_watched;
}

void blocks_destroy(struct clock *c)
{
    if (c->arena)
        munmap(c->arena, ARENA);
    free(c->buckets);
    free(c->frame_has_code);
    free(c->frame_is_watched);
}

/* Forget all copies and all translations. */
void blocks_forget(struct clock *c)
{
    memset(c->buckets, 0, BUCKETS * sizeof(*c->buckets));
    new_epoch(c);
    memset(c->frame_has_code, 0, c->engine.ram_size / PAGE);
    c->arena_used = 0;
    c->last = NULL;
    c->fresh_size = 0;
    c->engine.tb_flush(c->engine.cpu);
}

static uint32_t first_part(uint64_t maddr, uint32_t size)
{
    uint64_t left = PAGE - PAGE_OFFSET(maddr);

    return left < size ? (uint32_t)left : size;
}

static bool same_bytes(const struct clock *c, const struct block *b)
{
    uint32_t first = first_part(b->maddr, b->size);

    if (memcmp(b->bytes, c->engine.ram + b->maddr, first))
        return false;
    return first == b->size || !memcmp(b->bytes + first, c->engine.ram + b->maddr2, b->size - first);
}

/* The instruction at an offset of the block. */
void decode_at(const struct block *b, size_t offset, struct instruction *out)
{
    decode(b->bytes + offset, b->size - offset, b->compat, out);
}

/* Take the copy, and find the instructions in it. */
static void describe(struct clock *c, struct block *b, uint32_t icount)
{
    uint32_t first = first_part(b->maddr, b->size), at = 0;
    struct instruction instruction;

    memcpy(b->bytes, c->engine.ram + b->maddr, first);
    c->frame_has_code[b->maddr / PAGE] = 1;
    if (first < b->size) {
        memcpy(b->bytes + first, c->engine.ram + b->maddr2, b->size - first);
        c->frame_has_code[b->maddr2 / PAGE] = 1;
    }
    b->icount = (uint16_t)icount;
    b->special_index = NO_SPECIAL;
    b->special = PLAIN;
    b->rep = 0;
    b->last_offset = 0;
    for (uint32_t i = 0; i < icount; i++) {
        b->last_offset = (uint16_t)at;
        decode_at(b, at, &instruction);
        if (instruction.special != PLAIN) {
            b->special_index = (uint16_t)i;
            b->special = instruction.special;
            break;
        }
        b->rep = instruction.rep;
        if (!instruction.length)
            break;
        at += instruction.length;
    }
}

/* How many instructions of the block begin before `offset`. */
unsigned instructions_before(const struct block *b, uint64_t offset)
{
    struct instruction instruction;
    uint32_t at = 0;
    unsigned n = 0;

    while (n < b->icount && at < offset) {
        decode_at(b, at, &instruction);
        n++;
        if (!instruction.length)
            break;
        at += instruction.length;
    }
    return n;
}

/* Where an instruction of the block begins. */
unsigned offset_of_instruction(const struct block *b, unsigned index)
{
    struct instruction instruction;
    unsigned at = 0;

    for (unsigned n = 0; n < index; n++) {
        decode_at(b, at, &instruction);
        at += instruction.length;
    }
    return at;
}

/* The engine announces every translation but its very first. */
static bool is_first_ever(struct clock *c, uint64_t pc, uint32_t size)
{
    struct engine *e = &c->engine;
    struct translation first;
    int error;

    if (c->translations)
        return false;
    *e->cflags_next_tb = c->limit ? (uint32_t)c->limit : ~0u;
    error = e->ctl(e->uc, REQUEST_CACHE, pc, &first);
    *e->cflags_next_tb = ~0u;
    if (error || first.size != size)
        return false;
    c->fresh_icount = first.icount;
    return true;
}

/* Make the engine forget the block that it is about to run. */
void drop_translation(struct clock *c, uint64_t pc, uint32_t size)
{
    c->engine.ctl(c->engine.uc, REMOVE_CACHE, pc, pc + first_part(pc, size));
}

/* Make the engine translate again what it runs now, under the same limit. */
static _Noreturn void retranslate(struct clock *c, uint64_t pc, uint32_t size)
{
    drop_translation(c, pc, size);
    restart(c, (unsigned)c->limit);
}

/*
 * The block that is about to run, its copy equal to RAM. Does not return (restarts) when the translation is stale, or when
 * the second page is not mapped any more.
 */
struct block *block_of(struct clock *c, uint64_t pc, uint32_t size)
{
    struct engine *e = &c->engine;
    uint64_t maddr, maddr2 = ONE_PAGE;
    bool fresh = c->fresh_size == size && c->fresh_pc == pc, compat = is_compat(c);
    struct block **bucket, *b;

    c->slow_blocks++;
    c->fresh_size = 0;
    if (e->vmem_translate(e->uc, pc, UC_PROT_EXEC, &maddr))
        restart(c, 1);
    if (first_part(pc, size) < size && e->vmem_translate(e->uc, PAGE_BASE(pc) + PAGE, UC_PROT_EXEC, &maddr2)) {
        /* the engine is to find the fault itself; its translation would hide it */
        drop_translation(c, pc, size);
        restart(c, 1);
    }
    if (maddr + first_part(pc, size) > e->ram_size || (maddr2 != ONE_PAGE && maddr2 + PAGE > e->ram_size)) {
        fail(c, FAILURE_OUTSIDE_RAM);
        restart(c, 0);
    }
    bucket = &c->buckets[(maddr ^ maddr >> 16 ^ (uint64_t)size << 5) & (BUCKETS - 1)];
    for (b = *bucket; b; b = b->next)
        if (b->maddr == maddr && b->size == size && b->maddr2 == maddr2 && b->compat == compat)
            break;
    if (b) {
        if (same_bytes(c, b))
            return b;
        if (!fresh) {
            c->stale_blocks++;
            retranslate(c, pc, size);
        }
        describe(c, b, (uint32_t)c->fresh_icount);
        return b;
    }
    if (!fresh && !is_first_ever(c, pc, size))
        retranslate(c, pc, size);
    size_t need = (sizeof(*b) + size + 7) & ~(size_t)7;
    if (c->arena_used + need > c->code_limit) {
        blocks_forget(c);
        restart(c, (unsigned)c->limit);
    }
    b = (struct block *)(c->arena + c->arena_used);
    c->arena_used += need;
    b->maddr = maddr;
    b->maddr2 = maddr2;
    b->size = (uint16_t)size;
    b->compat = compat;
    b->next = *bucket;
    *bucket = b;
    describe(c, b, (uint32_t)c->fresh_icount);
    return b;
}
