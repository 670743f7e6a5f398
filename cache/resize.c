/*
 * The size. Growing is a number that the next commit carries. Shrinking is two commits, since one
 * that speaks of blocks beyond its own size is damage: the first makes the tail zero, so that a
 * later grow finds zeros there; the second carries the smaller size. Meanwhile nobody may write to
 * the tail: `size_blocks` is what front ends see, `commit_blocks` what commits carry, and the
 * larger one as long as the tail is being emptied.
 */
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

/* The next commit carries the size. Lock held. */
static void note_size(struct volume *v)
{
    if (!v->size_changed && !v->chunks.dirty_cost)
        v->dirty_since_ms = v->clock->now_ms();
    v->size_changed = true;
    v->changes++;
    pthread_cond_signal(&v->seal_wanted);
}

static bool is_size(uint64_t size_bytes)
{
    return size_bytes % BLOCK_BYTES == 0 && size_bytes / BLOCK_BYTES < VOLUME_BLOCKS_MAX;
}

int volume_resize(struct volume *v, uint64_t size_bytes)
{
    uint64_t blocks = size_bytes / BLOCK_BYTES;
    scope_lock(&v->chunks.lock);

    if (v->cfg.read_only)
        return -EROFS;
    if (!is_size(size_bytes) || blocks < v->size_blocks)
        return -EINVAL;
    if (v->shrinking)
        return -EBUSY;
    int r = volume_check_state(v);
    while (r == 0 && v->sealing)
        chunks_wait(&v->chunks);
    if (r < 0 || blocks == v->size_blocks)
        return r;
    v->size_blocks = v->commit_blocks = blocks;
    note_size(v);
    return 0;
}

/* ------------------------------------------------------------------ shrinking */

/* Between writes: none that began before is still under way. Lock held, released meanwhile. */
static void wait_for_writers(struct volume *v)
{
    while (v->writers > 0) {
        v->sealing = true; /* a seal that came between has cleared it */
        chunks_wait(&v->chunks);
    }
    v->sealing = false;
    chunks_changed(&v->chunks);
}

/* -ENOTEMPTY: [offset, end) has something. */
static int check_empty(struct volume *v, uint64_t offset, uint64_t end)
{
    uint64_t found;
    int r = volume_seek_below(v, offset, end, true, &found);

    return r == 0 ? -ENOTEMPTY : r == -ENXIO ? 0 : r;
}

/* Something beyond `block` is not in the index yet. Lock held. */
static bool has_news_beyond(const struct volume *v, uint64_t block)
{
    for (const struct chunk *c = v->chunks.queues[QUEUE_HELD].first; c; c = c->next) {
        uint64_t first = c->number * CHUNK_BLOCKS, news = c->dirty | c->unindexed;
        uint64_t kept = block <= first
                            ? 0
                            : mask_range(0, (unsigned)MIN(block - first, (uint64_t)CHUNK_BLOCKS));
        if (news & ~kept)
            return true;
    }
    return false;
}

/* Until all that is sealed by now is in the index. Lock held. */
static int wait_indexed(struct volume *v)
{
    uint64_t target = v->sealed;
    int r = volume_check_state(v);

    while (r == 0 && v->indexed < target) {
        if (v->stopping)
            return -ECANCELED;
        pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
        r = volume_check_state(v);
    }
    return r;
}

/* The tail [blocks, end) is zero, in the bucket and in the index; and no row of the index speaks of
 * it as dirty any more, nor the index of the larger size, which the next mount would take for news.
 */
static int empty_tail(struct volume *v, uint64_t blocks, uint64_t end)
{
    bool again = true;
    int r = volume_discard_blocks(v, blocks, end);

    while (r == 0 && again) {
        r = volume_wait_durable(v);
        if (r < 0)
            break;
        pthread_mutex_lock(&v->chunks.lock);
        r = wait_indexed(v);
        again = has_news_beyond(v, blocks); /* of a discard that began before */
        pthread_mutex_unlock(&v->chunks.lock);
    }
    return r == 0 ? volume_record(v) : r;
}

/* Nobody reads or writes beyond from here on; but by leave of shrink_tail(). Lock held. */
static void close_tail(struct volume *v, uint64_t blocks)
{
    wait_for_writers(v);
    v->size_blocks = blocks;
    v->changes++; /* so that volume_record() stores it */
}

static int shrink_tail(struct volume *v, uint64_t blocks, uint64_t end, bool discard_data)
{
    int r;

    pthread_mutex_lock(&v->chunks.lock);
    close_tail(v, blocks);
    pthread_mutex_unlock(&v->chunks.lock);
    r = discard_data ? 0 : check_empty(v, blocks * BLOCK_BYTES, end * BLOCK_BYTES);
    if (r == 0)
        r = empty_tail(v, blocks, end);
    scope_lock(&v->chunks.lock);
    wait_for_writers(v);
    if (r == 0 &&
        has_news_beyond(v, blocks)) /* a discard that was late; zeros over zeros are no news */
        r = -EBUSY;
    if (r < 0) { /* as it was, but for what is discarded */
        v->size_blocks = v->commit_blocks;
        v->changes++;
        return r;
    }
    v->commit_blocks = blocks;
    note_size(v);
    return 0;
}

int volume_shrink(struct volume *v, uint64_t size_bytes, bool discard_data)
{
    uint64_t blocks = size_bytes / BLOCK_BYTES, end;
    int r = volume_check_writable(v);

    if (r < 0)
        return r;
    pthread_mutex_lock(&v->chunks.lock);
    end = v->size_blocks;
    r = !is_size(size_bytes) || blocks > end || size_bytes < VOLUME_BYTES_MIN ? -EINVAL
        : v->shrinking                                                        ? -EBUSY
                       : volume_check_state(v);
    v->shrinking = v->shrinking || r == 0;
    pthread_mutex_unlock(&v->chunks.lock);
    if (r < 0)
        return r;
    /* mostly this is where it is refused, and then nobody noticed */
    if (blocks < end && !discard_data)
        r = check_empty(v, size_bytes, end * BLOCK_BYTES);
    if (r == 0 && blocks < end)
        r = shrink_tail(v, blocks, end, discard_data);
    pthread_mutex_lock(&v->chunks.lock);
    v->shrinking = false;
    pthread_mutex_unlock(&v->chunks.lock);
    return r == 0 ? volume_wait_durable(v) : r;
}
