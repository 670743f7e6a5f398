/*
 * What the index knows of dirty blocks. In cache mode a flush is this: the slots are synced, then
 * one transaction says which blocks are dirty, and where. Also after a mount found such rows, until
 * they are corrected, in either mode.
 */
#include "disk_io.h"
#include "volume_internal.h"

#include "../store/bytes.h"
#include "../store/msg.h"
#include "../store/scope.h"

#include <fcntl.h>
#include <string.h>

enum { PADDED_MAX = 1024 }; /* chunks, 256 MiB */

void volume_note_change(struct volume *v, struct chunk *c)
{
    v->changes++;
    if (c->unrecorded || c->row_covers || (v->cfg.sync != SYNC_CACHE && !c->recorded_dirty))
        return;
    INVARIANT(v->nunrecorded < v->unrecorded_room);
    c->unrecorded = 1;
    v->unrecorded[v->nunrecorded++] = c;
    chunk_requeue(&v->chunks, c);
}

void volume_correct_row(struct volume *v, struct chunk *c)
{
    if (!c->recorded_dirty || v->cfg.read_only)
        return;
    c->row_covers = 0;
    volume_note_change(v, c);
    if (!v->record_wanted)
        pthread_cond_signal(&v->index_wanted);
    v->record_wanted = true;
}

void volume_forget_changes(struct volume *v)
{
    size_t kept = 0;

    for (size_t i = 0; i < v->nunrecorded; i++) {
        struct chunk *c = v->unrecorded[i];
        if (c->dirty || c->unindexed || c->recorded_dirty) {
            v->unrecorded[kept++] = c;
        } else {
            c->unrecorded = 0;
            chunk_requeue(&v->chunks, c);
        }
    }
    v->nunrecorded = kept;
}

/* Only the blocks that the bucket may not have are vouched for; `pad`: of a chunk that has some,
 * all that the slot has, too. Lock held. */
static struct index_cached row_of(const struct chunk *c, bool pad)
{
    uint64_t ours = c->dirty | c->unindexed;

    if (ours && pad)
        ours |= c->valid & ~c->zero;
    return (struct index_cached){.chunk = c->number,
                                 .valid = ours,
                                 .zero = c->zero & ours,
                                 .dirty = ours,
                                 .slot = ours & ~c->zero ? c->slot : 0};
}

/* The file says, even when index.db is lost, that the cache has what nobody else has; and as of
 * which epoch (le64): an index that knows of no such is an older one. */
int volume_mark_unsynced(struct volume *v)
{
    char path[sizeof v->dir + 16];
    scope_close int fd = -1, dir = -1;
    struct index_meta meta;
    uint8_t epoch[8];

    if (format(path, sizeof path, "%s/unsynced", v->dir) < 0)
        return -ENAMETOOLONG;
    index_get_meta(v->index, &meta);
    put_le64(epoch, meta.pos.epoch);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    dir = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 || dir < 0 ? -errno : io_all(fd, true, epoch, sizeof epoch, 0);
    if (r == 0 && (fsync(fd) < 0 || fsync(dir) < 0))
        r = -errno;
    if (r < 0)
        return msg_error(r == -ENOSPC || r == -EDQUOT ? -ENOSPC : -EIO, "%s: %s", path,
                         strerror(-r));
    v->marked = true;
    return 0;
}

int volume_read_mark(struct volume *v, uint64_t *ret_epoch)
{
    char path[sizeof v->dir + 16];
    uint8_t epoch[8];

    v->marked = false;
    *ret_epoch = 0;
    if (format(path, sizeof path, "%s/unsynced", v->dir) < 0)
        return -ENAMETOOLONG;
    scope_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    int r = fd < 0 ? -errno : io_all(fd, false, epoch, sizeof epoch, 0);
    if (r < 0)
        return msg_error(-EIO, "%s: %s", path, strerror(-r));
    v->marked = true;
    *ret_epoch = get_le64(epoch);
    return 0;
}

/* Durably: beside an index that knows of nothing dirty a later loss of it would be told. */
int volume_unmark_unsynced(struct volume *v)
{
    char path[sizeof v->dir + 16];
    scope_close int dir = -1;

    if (format(path, sizeof path, "%s/unsynced", v->dir) < 0)
        return -ENAMETOOLONG;
    if (unlink(path) < 0)
        return errno == ENOENT ? 0 : msg_error(-EIO, "%s: %s", path, strerror(errno));
    dir = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir < 0 || fsync(dir) < 0 ? msg_error(-EIO, "%s: %s", v->dir, strerror(errno)) : 0;
}

static int sync_slots(struct volume *v)
{
    int r = slots_sync(v->slots);

    if (r == 0)
        return 0;
    scope_lock(&v->chunks.lock);
    volume_fail(v, VOLUME_FAILED); /* the next sync might say that all is well although it is not */
    return msg_error(-EIO, "%s: syncing the cache: %s", v->dir, strerror(-r));
}

/* Do the rows, or the size, say what the bucket has not? */
static bool only_here(struct volume *v, const struct index_cached *rows, size_t n,
                      uint64_t size_blocks)
{
    struct index_meta meta;
    bool dirty = false;

    for (size_t i = 0; i < n && !dirty; i++)
        dirty = rows[i].dirty != 0;
    index_get_meta(v->index, &meta);
    return dirty || size_blocks > meta.pos.size_blocks;
}

/* By who records, and nobody else meanwhile. *ret_none: it failed, and no row was stored. */
static int store_rows(struct volume *v, const struct index_cached *rows, size_t n,
                      uint64_t size_blocks, bool only, bool *ret_none)
{
    int r = 0;

    if (!v->marked && only_here(v, rows, n, size_blocks))
        r = volume_mark_unsynced(v);
    if (r == 0)
        r = sync_slots(v);
    *ret_none = r < 0;
    if (r == 0) {
        r = index_record(v->index, rows, n, size_blocks, only);
        *ret_none = r == -ENOSPC || r == -ENOMEM; /* of a sync that failed nobody knows */
    }
    return r;
}

/* Does the chunk's row say dirty, or may it soon? Lock held. */
static void note_row(struct volume *v, struct chunk *c, bool dirty)
{
    v->nrecorded_dirty += (size_t)dirty - (size_t)c->recorded_dirty;
    c->recorded_dirty = dirty;
}

/* Who writes to a block again that its row calls dirty needs no new row for the next flush, which
 * is then the sync of the slots alone. So a row calls dirty all that the slot has, if the chunk has
 * something dirty; after a crash these blocks are uploaded, as they are, without need: at most
 * PADDED_MAX chunks, and half of what may be dirty. Lock held. */
static bool may_pad(const struct volume *v, const struct chunk *c)
{
    return v->cfg.sync == SYNC_CACHE && !c->damaged &&
           v->nrecorded_dirty < MIN((uint64_t)PADDED_MAX, v->cfg.dirty_bytes / CHUNK_BYTES / 2);
}

/* Lock held, released meanwhile. */
static int record_now(struct volume *v)
{
    size_t n = v->nunrecorded;
    struct index_cached *rows = calloc(n + 1, sizeof *rows);
    struct chunk **chunks = calloc(n + 1, sizeof *chunks);
    scope_free bool *was = calloc(n + 1, sizeof *was); /* recorded_dirty */
    bool none = false;
    uint64_t upto = v->changes, size_blocks = v->size_blocks;
    int r = rows && chunks && was ? 0 : -ENOMEM;

    for (size_t i = 0; i < n && r == 0; i++) {
        struct chunk *c = chunks[i] = v->unrecorded[i];
        bool pad = may_pad(v, c);
        rows[i] = row_of(c, pad);
        was[i] = c->recorded_dirty;
        c->row_covers = pad && rows[i].dirty;
        if (rows[i].dirty) /* from now on: its commit may come to its end while this is stored */
            note_row(v, c, true);
        c->unrecorded = 0;
        c->pins++;
    }
    if (r == 0) {
        v->nunrecorded = 0;
        pthread_mutex_unlock(&v->chunks.lock);
        r = store_rows(v, rows, n, size_blocks, false, &none);
        pthread_mutex_lock(&v->chunks.lock);
        v->recorded = r == 0 ? upto : v->recorded;
        for (size_t i = 0; i < n; i++) {
            struct chunk *c = chunks[i];
            if (r == 0) {
                note_row(v, c, rows[i].dirty != 0);
            } else {
                c->row_covers = 0;
                if (!c->unrecorded) /* as it was: the next flush tries again */
                    v->unrecorded[v->nunrecorded++] = c;
                c->unrecorded = 1;
            }
            if (none)
                note_row(v, c, was[i]);
            chunk_requeue(&v->chunks, c);
            chunk_unpin(&v->chunks, c);
        }
        if (r < 0)
            volume_forget_changes(v);
    }
    free(rows);
    free(chunks);
    return r;
}

int volume_record(struct volume *v)
{
    scope_lock(&v->chunks.lock);
    uint64_t target = v->changes;
    int r = 0;

    while (r == 0 && (v->recorded < target || v->nunrecorded > 0)) {
        if (v->recording) { /* it may be ours already, or the next one is */
            chunks_wait(&v->chunks);
            if (v->recorded >= target)
                break;
            continue;
        }
        if (v->state == VOLUME_FAILED) /* the record that we waited for: its sync says so once */
            return -EIO;
        v->recording = true;
        r = record_now(v);
        v->recording = false;
        chunks_changed(&v->chunks);
        break;
    }
    return r;
}

int volume_rehearse(struct volume *v)
{
    struct index_meta meta;
    uint32_t sums[CHUNK_BLOCKS];
    size_t n = 0;

    memset(sums, 1, sizeof sums); /* as many as there can be */
    pthread_mutex_lock(&v->chunks.lock);
    scope_free struct index_cached *rows = calloc(v->chunks.queues[QUEUE_HELD].n + 1, sizeof *rows);
    for (const struct chunk *c = v->chunks.queues[QUEUE_HELD].first; c && rows; c = c->next) {
        if (c->recorded_dirty) /* by the mount before: that row must stay */
            continue;
        rows[n] = row_of(c, false);
        rows[n].dirty = 0; /* so a crash forgets it */
        rows[n].sums = sums;
        n += rows[n].valid != 0;
    }
    pthread_mutex_unlock(&v->chunks.lock);
    int r = rows ? sync_slots(v) : -ENOMEM;
    index_get_meta(v->index, &meta);
    return r == 0 ? index_record(v->index, rows, n, meta.local_blocks, false) : r;
}

/* The sums of a row that calls blocks dirty: they are believed after an unclean end, too, in bucket
 * mode; the others' are where they are (sums.h). NULL: not to be had. */
static const uint32_t *sums_for(struct volume *v, const struct chunk *c, uint64_t ours,
                                uint32_t room[CHUNK_BLOCKS])
{
    bool none = !room || c->slot == SLOT_NONE || !ours;

    return none || slots_get_sums(v->slots, c->slot, room) < 0 ? NULL : room;
}

int volume_record_all(struct volume *v)
{
    struct chunks *t = &v->chunks;
    scope_free struct index_cached *rows = calloc(t->nchunks + 1, sizeof *rows);
    size_t sum_bytes = CHUNK_BLOCKS * sizeof(uint32_t), n = 0, room = t->queues[QUEUE_HELD].n + 1;
    scope_free uint32_t *sums = calloc(room, sum_bytes); /* or without */
    uint32_t *free_sums = sums;
    /* What the index could not take in any more the next mount reads from the log; but not if there
     * is dirt: that may be a fork then, which ends before the log goes on. */
    bool all_stored = v->durable >= v->sealed_data && t->dirty_cost == 0, none;
    int r;

    if (!rows)
        return -ENOMEM;
    for (size_t i = 0; i < t->nbuckets; i++) {
        for (const struct chunk *c = t->buckets[i]; c; c = c->hash_next) {
            uint64_t stored = all_stored ? c->unindexed : 0, valid = c->valid & ~stored;
            uint64_t ours = c->dirty | (c->unindexed & ~stored);
            if (!ours && (c->slot == SLOT_NONE || c->number * CHUNK_BLOCKS >= v->size_blocks))
                continue; /* the map knows that it is zero, or the volume has shrunk */
            bool slot = c->slot != SLOT_NONE;
            rows[n++] = (struct index_cached){.chunk = c->number,
                                              .valid = valid,
                                              .zero = c->zero & valid,
                                              .dirty = ours,
                                              .slot = slot ? c->slot : 0,
                                              .sums = sums_for(v, c, ours, free_sums)};
            free_sums += sums && ours ? CHUNK_BLOCKS : 0;
        }
    }
    r = store_rows(v, rows, n, v->size_blocks, true, &none);
    return r == 0 && !only_here(v, rows, n, v->size_blocks) ? volume_unmark_unsynced(v) : r;
}
