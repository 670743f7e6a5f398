/* Packing a commit's segments and storing them in the log. */
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

/* One uploader's memory. */
struct packer {
    struct volume *v;
    struct framer *framer;
    uint8_t *buf;   /* a whole segment */
    uint8_t *chunk; /* the blocks of one chunk, each at its place */
};

enum {
    BUF_BYTES = HEADER_BYTES + LOG_ENTRIES_MAX * ENTRY_BYTES + LOG_SEGMENT_RAW_BYTES,
};

/* ------------------------------------------------------------------ packing */

/* Reads blocks of a sealed chunk as they were at the seal. -EBADMSG: some are damaged; said. */
static int read_sealed(struct packer *p, struct sealed_chunk *s, uint64_t mask)
{
    struct volume *v = p->v;
    struct chunks *t = &v->chunks;
    uint64_t bad = 0;
    struct op op;

    pthread_mutex_lock(&t->lock);
    while (chunk_busy(s->chunk, mask, OP_READ))
        chunk_wait(t, s->chunk);
    chunk_begin(s->chunk, &op, mask, OP_READ);
    uint64_t saved = s->saved & mask;
    uint32_t save_slot = s->save_slot;
    pthread_mutex_unlock(&t->lock);
    int r = slots_gather(v->slots, save_slot, saved, 0, p->chunk, &bad);
    if (r == 0)
        r = slots_gather(v->slots, s->slot, mask & ~saved, saved, p->chunk, &bad);
    pthread_mutex_lock(&t->lock);
    if (r == 0 && bad)
        (void)volume_damaged_in_commit(v, s->chunk, bad);
    else if (r == 0)
        s->mask &= ~mask; /* from here on these may be overwritten */
    chunk_end(t, s->chunk, &op);
    pthread_mutex_unlock(&t->lock);
    if (r < 0)
        return msg_error(-EIO, "%s: reading the cache: %s", v->dir, strerror(-r));
    return bad ? -EBADMSG : 0;
}

/* The blocks of the entries from `at` on that are of the same chunk, and data. */
static uint64_t same_chunk(const struct commit *c, const struct segment *seg, unsigned at)
{
    const struct entry *e = &c->entries[seg->first_entry];
    uint64_t chunk = e[at].block / CHUNK_BLOCKS, mask = 0;

    for (; at < seg->nentries && e[at].block / CHUNK_BLOCKS == chunk; at++)
        if (e[at].kind == ENTRY_DATA)
            mask |= mask_range((unsigned)(e[at].block % CHUNK_BLOCKS), (unsigned)e[at].nblocks);
    return mask;
}

/* Frames behind each other, after room for header and table; completes the entries. */
static int pack(struct packer *p, struct commit *c, unsigned number, size_t *ret_len)
{
    const struct segment *seg = &c->segments[number];
    size_t at = HEADER_BYTES + (size_t)seg->nentries * ENTRY_BYTES, chunk = seg->first_chunk;
    uint64_t loaded = UINT64_MAX;

    for (unsigned i = 0; i < seg->nentries; i++) {
        struct entry *e = &c->entries[seg->first_entry + i];
        if (e->kind != ENTRY_DATA)
            continue;
        if (e->block / CHUNK_BLOCKS != loaded) {
            loaded = e->block / CHUNK_BLOCKS;
            while (c->chunks[c->order[chunk]].chunk->number != loaded)
                chunk++;
            int r = read_sealed(p, &c->chunks[c->order[chunk]], same_chunk(c, seg, i));
            if (r < 0)
                return r;
        }
        frame_pack(p->framer, p->chunk + e->block % CHUNK_BLOCKS * BLOCK_BYTES, p->v->cfg.compress,
                   e, p->buf + at);
        e->seq = c->first_seq + number;
        e->offset = (uint32_t)at;
        at += e->stored_bytes;
    }
    *ret_len = at;
    return 0;
}

/* ------------------------------------------------------------------ bookkeeping */

/* The commit needs no slot any more. Lock held. */
static void end_packing(struct volume *v, struct commit *c)
{
    for (size_t i = 0; i < c->nchunks; i++) {
        struct sealed_chunk *s = &c->chunks[i];
        s->chunk->sealed = NULL;
        if (s->save_slot != SLOT_NONE)
            chunks_give_slot(&v->chunks, s->save_slot);
    }
    v->packing = NULL;
    pthread_cond_signal(&v->seal_wanted);
}

/* Commits are durable in order only. Lock held. */
static void advance(struct volume *v)
{
    struct commit *c = v->oldest;

    while (c && c->number <= v->durable)
        c = c->next;
    for (; c && c->planned && c->stored == c->nsegments; c = c->next) {
        v->durable = c->number;
        v->uploading_cost -= c->cost;
        v->last_commit_ms = v->clock->now_ms();
        chunks_changed(&v->chunks);
    }
    pthread_cond_signal(&v->index_wanted);
    pthread_cond_broadcast(&v->commit_moved);
}

void volume_stored(struct volume *v, struct commit *c)
{
    c->stored++;
    advance(v);
}

/* There is one uploader more than uploads, which packs meanwhile. They begin in order, or the
 * window of the log would be waited for by all uploads, and an upload by who could move it. Lock
 * held. */
static void begin_upload(struct volume *v, uint64_t turn)
{
    while (v->uploads_begun != turn || v->uploads_in_flight == v->cfg.uploads)
        pthread_cond_wait(&v->upload_moved, &v->chunks.lock);
    v->uploads_begun++;
    v->uploads_in_flight++;
    pthread_cond_broadcast(&v->upload_moved);
}

static void upload(struct packer *p, struct commit *c, unsigned number, uint64_t turn)
{
    const struct segment *seg = &c->segments[number];
    struct volume *v = p->v;
    size_t len = 0;
    int r = pack(p, c, number, &len);

    pthread_mutex_lock(&v->chunks.lock);
    if (r < 0)
        volume_fail(v, r == -EBADMSG ? VOLUME_DAMAGED : VOLUME_FAILED);
    else if (++c->packed == c->nsegments)
        end_packing(v, c);
    begin_upload(v, turn);
    pthread_mutex_unlock(&v->chunks.lock);
    if (r == 0)
        r = log_append(v->log, c->first_seq + number, c->first_seq, c->first_seq + c->nsegments - 1,
                       c->size_blocks, &c->entries[seg->first_entry], seg->nentries, p->buf, len);
    scope_lock(&v->chunks.lock);
    v->uploads_in_flight--;
    pthread_cond_broadcast(&v->upload_moved);
    if (r == 0) {
        volume_stored(v, c);
    } else if (r == -ESTALE) {
        volume_fail(v, VOLUME_FENCED);
    }
}

/* Segments that wait to be packed. Lock held. */
static unsigned untaken(const struct volume *v)
{
    return v->packing ? v->packing->nsegments - v->packing->taken : 0;
}

/* The next segment of the commit being packed; NULL: stop. */
static struct commit *next_segment(struct volume *v, unsigned *ret_number, uint64_t *ret_turn)
{
    scope_lock(&v->chunks.lock);
    v->uploaders_ready++;
    while (!v->stopping && !untaken(v))
        pthread_cond_wait(&v->pack_wanted, &v->chunks.lock);
    v->uploaders_ready--;
    if (v->stopping)
        return NULL;
    *ret_number = v->packing->taken++;
    *ret_turn = v->segments_taken++;
    if (untaken(v))
        pthread_cond_signal(&v->pack_wanted); /* the next one takes the next one */
    return v->packing;
}

/* The first uploader's memory is touched from the start, not when memory is short; the others' when
 * there is more to do than those that have theirs can do, and before they take any of it: who has
 * to wait for memory holds up nobody, and an idle volume needs little. False: stop. */
static bool wait_for_need(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    if (v->uploaders++ == 0)
        return true;
    while (!v->stopping && untaken(v) <= v->uploaders_ready)
        pthread_cond_wait(&v->more_wanted, &v->chunks.lock);
    return !v->stopping;
}

void *volume_uploader(void *arg)
{
    struct packer p = {.v = arg};
    struct commit *c;
    unsigned number;
    uint64_t turn;

    p.buf = aligned_alloc(BLOCK_BYTES, ROUND_UP(BUF_BYTES, BLOCK_BYTES));
    p.chunk = aligned_alloc(BLOCK_BYTES, CHUNK_BYTES);
    if (!p.buf || !p.chunk || framer_new(&p.framer) < 0) {
        scope_lock(&p.v->chunks.lock);
        msg_error(0, "%s: no memory for an uploader", p.v->dir);
        volume_fail(p.v, VOLUME_FAILED);
    } else if (wait_for_need(p.v)) {
        memset(p.buf, 0, BUF_BYTES);
        memset(p.chunk, 0, CHUNK_BYTES);
        while ((c = next_segment(p.v, &number, &turn)) != NULL)
            upload(&p, c, number, turn);
    }
    framer_free(p.framer);
    free(p.buf);
    free(p.chunk);
    return NULL;
}
