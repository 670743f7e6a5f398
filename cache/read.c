/* Reading: hits here, misses through fetch.c. */
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

/* Makes the table's own room for one more chunk. Lock held. */
static int obtain_room(struct volume *v)
{
    while (!chunks_make_room(&v->chunks, 0))
        if (volume_wait_for_room(v) < 0)
            return -EIO;
    return 0;
}

int volume_obtain(struct volume *v, uint64_t number, bool create, struct chunk **ret)
{
    struct chunks *t = &v->chunks;
    struct chunk *c;

    while (!(c = chunks_find(t, number))) {
        uint64_t generation = v->index_generation, mapped;
        pthread_mutex_unlock(&t->lock);
        int r = index_mask(v->index, number, &mapped);
        pthread_mutex_lock(&t->lock);
        if (r < 0)
            return r;
        /* it may have come and gone meanwhile, and left other places in the index */
        if (generation != v->index_generation || chunks_find(t, number))
            continue;
        if (!create && mapped == 0) {
            *ret = NULL;
            return 0;
        }
        if (t->nchunks >= t->max_chunks) {
            r = obtain_room(v);
            if (r < 0)
                return r;
            continue;
        }
        c = chunks_add(t, number, mapped);
        if (!c)
            return -ENOMEM;
        break;
    }
    c->pins++;
    *ret = c;
    return 0;
}

int volume_wait_for_room(struct volume *v)
{
    int r = v->stopping ? -ECANCELED : volume_check_state(v);

    if (r < 0)
        return r;
    v->pressed++;
    pthread_cond_signal(&v->seal_wanted);
    chunks_wait(&v->chunks);
    v->pressed--;
    return v->stopping ? -ECANCELED : volume_check_state(v);
}

/* Whole blocks, perhaps of several slots behind each other. */
static int read_blocks(struct volume *v, uint32_t slot, unsigned first, unsigned n, void *buf,
                       uint64_t bad[])
{
    int r = slots_read(v->slots, slot, first, n, buf, bad);

    return r == 0 || r == -EBADMSG
               ? r
               : msg_error(-EIO, "%s: reading the cache: %s", v->dir, strerror(-r));
}

int volume_copy_out(struct volume *v, uint32_t slot, uint64_t zero, uint32_t offset, size_t len,
                    uint8_t *buf, uint64_t *ret_bad)
{
    uint32_t end = offset + (uint32_t)len;
    uint64_t bad = 0;

    while (offset < end) {
        unsigned block = offset / BLOCK_BYTES, n;
        bool is_zero = zero >> block & 1;
        uint32_t in_block = offset % BLOCK_BYTES;
        uint8_t one[BLOCK_BYTES];
        uint64_t bad_here = 0;
        int r = 0;

        (void)mask_run((is_zero ? zero : ~zero) >> block, &n);
        size_t piece = MIN((block + n) * BLOCK_BYTES, end) - offset;
        if (is_zero) {
            memset(buf, 0, piece);
        } else if (in_block == 0 && piece >= BLOCK_BYTES) {
            piece = ROUND_DOWN(piece, (size_t)BLOCK_BYTES);
            r = read_blocks(v, slot, block, (unsigned)(piece / BLOCK_BYTES), buf, &bad_here);
        } else { /* a part of a block */
            piece = MIN(piece, (size_t)(BLOCK_BYTES - in_block));
            r = read_blocks(v, slot, block, 1, one, &bad_here);
            memcpy(buf, one + in_block, piece);
        }
        if (r < 0 && r != -EBADMSG)
            return r;
        bad |= bad_here;
        buf += piece;
        offset += (uint32_t)piece;
    }
    if (!bad)
        return 0;
    *ret_bad = bad;
    return -EBADMSG;
}

/* Blocks [offset, offset + len) of one chunk touch. */
static uint64_t touched(uint32_t offset, size_t len)
{
    unsigned first = offset / BLOCK_BYTES;

    return mask_range(first, (unsigned)DIV_UP(offset + len, (size_t)BLOCK_BYTES) - first);
}

/* Chunks behind each other, held for one read. */
struct run {
    unsigned n;
    struct chunk *chunks[UNIT_CHUNKS];
    struct op ops[UNIT_CHUNKS];
    uint32_t offset; /* in the first */
    size_t len;      /* in all */
    uint64_t hits;   /* blocks, if it succeeds */
    bool sequential;
};

/* Lock held. */
static void join(struct run *run, struct chunk *c, uint64_t mask, bool counted)
{
    chunk_begin(c, &run->ops[run->n], mask, OP_READ);
    run->chunks[run->n++] = c;
    if (!run->sequential && c->uses < 3)
        c->uses++;
    run->hits += counted ? 0 : mask_count(mask);
}

/* The chunks that follow, as far as their slots are neighbours, too: then one read of the cache
 * disk does for all, up to `end`. Waits for nothing, as it holds chunks already. Lock held. */
static void join_neighbours(struct volume *v, struct run *run, uint64_t at, uint64_t end,
                            uint64_t fetched)
{
    const struct chunk *last = run->chunks[0];

    if (run->offset % BLOCK_BYTES || last->zero & touched(run->offset, run->len))
        return;
    for (at += run->len; run->n < UNIT_CHUNKS && at < end && at % CHUNK_BYTES == 0;) {
        size_t len = MIN(end - at, (uint64_t)CHUNK_BYTES);
        uint64_t mask = touched(0, len);
        struct chunk *c = chunks_find(&v->chunks, at / CHUNK_BYTES);
        if (!c || c->slot != last->slot + 1 || mask & (~c->valid | c->zero) || len % BLOCK_BYTES ||
            chunk_busy(c, mask, OP_READ))
            return;
        c->pins++;
        join(run, c, mask, at < fetched);
        run->len += len;
        at += len;
        last = c;
    }
}

/* What is valid, and held. As read_some(). Lock held, released meanwhile. */
static int read_run(struct volume *v, struct run *run, uint8_t *buf, bool wait)
{
    struct chunks *t = &v->chunks;
    uint64_t zero = run->chunks[0]->zero, bad[UNIT_CHUNKS] = {0};
    uint32_t slot = run->chunks[0]->slot;

    pthread_mutex_unlock(&t->lock);
    int r = run->n == 1 ? volume_copy_out(v, slot, zero, run->offset, run->len, buf, bad)
                        : read_blocks(v, slot, run->offset / BLOCK_BYTES,
                                      (unsigned)(run->len / BLOCK_BYTES), buf, bad);
    pthread_mutex_lock(&t->lock);
    bool damaged = r == -EBADMSG;
    for (unsigned i = 0; i < run->n; i++) {
        if (damaged && bad[i] && volume_damaged(v, run->chunks[i], bad[i]) == -EIO)
            r = -EIO;
        chunk_end(t, run->chunks[i], &run->ops[i]);
    }
    for (unsigned i = 0; i < run->n; i++) {
        struct chunk *c = run->chunks[i];
        while (r == -EBADMSG && wait && chunk_busy(c, bad[i], OP_WRITE))
            chunk_wait(t, c); /* other readers keep the fetch from them */
        chunk_unpin(t, c);
    }
    v->hits += r == 0 ? run->hits : 0;
    return r;
}

/* The next chunk's part of a read, and what lies behind it in the slots: *ret_len bytes. 1: there
 * is nothing; -ENODATA: not all of it is here; -EBADMSG: no longer; -EAGAIN: would have to wait.
 * What is before `fetched` was counted already. */
static int read_some(struct volume *v, uint64_t at, uint64_t end, uint64_t fetched, uint8_t *buf,
                     bool wait, bool sequential, size_t *ret_len)
{
    struct chunks *t = &v->chunks;
    struct run run = {.offset = (uint32_t)(at % CHUNK_BYTES), .sequential = sequential};
    struct chunk *c;

    run.len = *ret_len = MIN(end - at, (uint64_t)(CHUNK_BYTES - run.offset));
    uint64_t mask = touched(run.offset, run.len);
    scope_lock(&t->lock);
    int r = volume_obtain(v, at / CHUNK_BYTES, false, &c);
    if (r < 0 || !c)
        return r < 0 ? r : 1;
    while (r == 0 && chunk_busy(c, mask, OP_READ)) {
        if (wait)
            chunk_wait(t, c);
        else
            r = -EAGAIN;
    }
    if (r == 0 && mask & ~c->valid)
        r = -ENODATA;
    if (r < 0) {
        chunk_unpin(t, c);
        return r;
    }
    join(&run, c, mask, at < fetched);
    join_neighbours(v, &run, at, end, fetched);
    *ret_len = run.len;
    return read_run(v, &run, buf, wait);
}

/* Whether a read from here on begins without a GET: its first block is cached, or on its way. */
static bool is_here(struct chunks *t, uint64_t offset)
{
    uint64_t mask = UINT64_C(1) << (offset / BLOCK_BYTES % CHUNK_BLOCKS);
    const struct chunk *c = chunks_find(t, offset / CHUNK_BYTES);

    return c && (c->valid & mask || chunk_busy(c, mask, OP_READ));
}

static int read_range(struct volume *v, void *buf, size_t len, uint64_t offset, bool wait)
{
    uint64_t end = offset + len, fetched = offset, ahead_from, ahead_to;
    unsigned full = 0, damaged = 0;
    int r = volume_check_range(v, offset, len);

    if (r < 0)
        return r;
    pthread_mutex_lock(&v->chunks.lock);
    bool sequential = readahead_note(&v->readahead, offset, len, wait, &ahead_from, &ahead_to);
    bool ahead = ahead_from < ahead_to;
    bool apart = ahead && is_here(&v->chunks, offset); /* else one GET may do for both */
    pthread_mutex_unlock(&v->chunks.lock);
    if (ahead && !wait)
        return -EAGAIN;
    if (apart) {
        volume_prefetch(v, ahead_from, ahead_to);
        ahead_from = ahead_to;
    }
    for (uint64_t at = offset; at < end;) {
        size_t n;
        uint8_t *to = (uint8_t *)buf + (at - offset);
        r = read_some(v, at, end, fetched, to, wait, sequential, &n);
        if ((r == -ENODATA || r == -EBADMSG) && !wait)
            return -EAGAIN;
        if (r == -EBADMSG && (r = volume_try_again(v, ++damaged)) == 0)
            continue;
        if (r == -ENODATA) {
            fetched = at + MIN(end - at, (uint64_t)DOWNLOAD_BYTES);
            r = volume_fetch(v, at, fetched - at, ahead_to);
            if (r == -ENOSPC)
                r = volume_use_less(v, full++);
            ahead_from = ahead_to;
        } else if (r >= 0) {
            if (r == 1)
                memset(to, 0, n);
            at += n;
            damaged = 0;
        }
        if (r < 0)
            return r;
    }
    if (ahead_from < ahead_to)
        volume_prefetch(v, ahead_from, ahead_to);
    return 0;
}

int volume_read(struct volume *v, void *buf, size_t len, uint64_t offset, bool wait)
{
    struct instant_use use = {.wait = wait};
    int r;

    do {
        r = volume_instant_begin(v, &use);
        if (r == 0)
            r = read_range(v, buf, len, offset, wait);
    } while (volume_instant_end(v, &use, &r));
    return r;
}
