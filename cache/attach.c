/*
 * Attaching: the cache directory is opened and believed as far as it may be; the map is brought up
 * to date from the bucket; the log is claimed. DESIGN.md says why this is safe.
 */
#include "catchup.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum { CLAIM_TRIES = 256, WHO_BYTES = 128 };

/* ------------------------------------------------------------------ what is believed */

/* A damaged index is thrown away if that loses nothing: -EAGAIN, begin anew. */
static int give_up_index(struct volume *v)
{
    if (volume_has_file(v, "unsynced") && !v->cfg.discard_local)
        return msg_error(-EBADMSG,
                         "%s: index.db is damaged, and the cache has data that is not in the "
                         "bucket; --discard-local mounts the volume as the bucket has it",
                         v->dir);
    msg_warn("%s: index.db is damaged: starting with an empty cache", v->dir);
    index_close(v->index);
    v->index = NULL;
    int r = volume_remove_cache(v);
    return r == 0 ? -EAGAIN : r;
}

static int count_dirty(void *ctx, const struct index_cached *row)
{
    struct dirt *dirt = ctx;

    dirt->chunks += row->dirty != 0;
    dirt->blocks += mask_count(row->dirty);
    return 0;
}

int volume_trust(struct volume *v, struct dirt *ret_dirt)
{
    struct dirt dirt = {0};
    struct index_meta meta;
    uint64_t epoch;
    int r = volume_read_mark(v, &epoch);

    if (r < 0)
        return r;
    index_get_meta(v->index, &meta);
    bool has_slots = volume_has_file(v, "slots"), forget = v->cfg.discard_local || !has_slots;
    /* rows that are forgotten nobody reads any more; and who has to refuse does so before the
     * claim: a damaged page is found here */
    r = forget || v->marked || !meta.clean
            ? index_each_cached(v->index, count_dirty, &dirt)
            : index_count_dirty(v->index, &dirt.chunks, &dirt.blocks);
    *ret_dirt = dirt;
    /* transactions that a lost -wal took along were of an epoch that the mark knows, or gave up
     * what the mark stood for; the slots may have other blocks by now */
    bool older = v->marked ? epoch > meta.pos.epoch : dirt.blocks > 0;
    if (r == 0 && older && !v->cfg.discard_local)
        r = msg_error(-EIO,
                      "%s: index.db is older than the rest, its -wal is gone, and with it data "
                      "that is not in the bucket; --discard-local mounts the volume as the "
                      "bucket has it",
                      v->dir);
    if (r < 0)
        return r;
    if (v->marked && !has_slots && !v->cfg.discard_local)
        return msg_error(-EIO,
                         "%s: slots is gone, and with it data that is not in the bucket; "
                         "--discard-local mounts the volume as the bucket has it",
                         v->dir);
    if (forget)
        r = index_forget(v->index, true);
    else if (!meta.clean)
        r = index_forget(v->index, false);
    if (r == 0 && v->marked && v->cfg.discard_local) {
        r = volume_unmark_unsynced(v);
        v->marked = r < 0;
    }
    return r;
}

/* ------------------------------------------------------------------ the claim */

/* What only this cache has must follow what this cache last attached; but somebody (`c->pos`) wrote
 * the volume since, and both cannot be true. */
static int refuse_fork(struct volume *v, const struct catchup *c, uint64_t dirty_blocks)
{
    char by[320];
    int r = log_describe_claim(v->log, c->pos.claim, by, sizeof by, ATTACH_PATIENCE_MS);
    if (r < 0)
        return r;
    return msg_error(
        -ESTALE,
        "%s: a fork: this cache (%s) has %" PRIu64
        " KiB that are not in the bucket, but the volume was attached elsewhere since, "
        "by %s; `s3vol clone --local` saves what it was here as another volume, --discard-local "
        "gives it up",
        store_url(v->store), v->dir, dirty_blocks * (BLOCK_BYTES / 1024), by);
}

static void describe_us(char *who)
{
    char host[64] = "unknown";

    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(who, WHO_BYTES, "host %s, process %d", host, (int)getpid());
}

/* The nonce is on the disk before the claim is in the bucket: else, after a crash in between, our
 * own claim would look like somebody else's. One whose claim has not been seen is used again: that
 * claim may still be under way. */
static int claim(struct volume *v, struct catchup *c)
{
    static const uint8_t none[UUID_BYTES];
    struct index_meta meta, before;
    char who[WHO_BYTES];
    int r = 0;

    index_get_meta(v->index, &meta);
    before = meta;
    if (index_is_ours(&meta, &c->pos))
        memcpy(meta.own_nonce, c->pos.nonce, UUID_BYTES); /* pending no longer */
    else
        meta.local_blocks = 0;
    if (v->cfg.discard_local)
        meta.local_blocks = 0;
    if (memcmp(meta.pending_nonce, none, UUID_BYTES) == 0 ||
        memcmp(meta.pending_nonce, meta.own_nonce, UUID_BYTES) == 0)
        r = random_bytes(meta.pending_nonce, UUID_BYTES);
    if (c->pos.epoch && !(meta.clean && index_is_ours(&meta, &c->pos)))
        meta.inventoried = false; /* who was killed may have left objects that nothing needs */
    meta.clean = false;           /* slots are about to change */
    if (r == 0 && memcmp(&meta, &before, sizeof meta) != 0) /* else a writer may be quicker again */
        r = index_put_meta(v->index, &meta);
    if (r < 0)
        return r;
    describe_us(who);
    return log_claim(v->log, &c->pos, c->missing, meta.pending_nonce, who, ATTACH_PATIENCE_MS);
}

/* The claim counts: the map is as of it. */
static int accept_claim(struct volume *v, const struct catchup *c)
{
    struct index_meta meta;
    int r = index_apply(v->index, NULL, 0, 0, &c->pos, true);

    index_get_meta(v->index, &meta);
    memcpy(meta.own_nonce, meta.pending_nonce, UUID_BYTES);
    return r == 0 ? index_put_meta(v->index, &meta) : r;
}

/* The writer was quicker. That can go on for ever: how far it is we know one answer later, and by
 * then it is further. So a claim is put where it will come to; *ahead is the last one's number. */
static int claim_ahead(struct volume *v, const struct catchup *c, uint64_t *ahead)
{
    struct index_meta meta;
    char who[WHO_BYTES];
    int r = -EAGAIN;

    index_get_meta(v->index, &meta);
    describe_us(who);
    for (unsigned n = LOG_AHEAD; r == -EAGAIN && n <= LOG_WINDOW && *ahead < c->missing; n *= 2) {
        r = log_claim_ahead(v->log, &c->pos, c->missing, n, meta.pending_nonce, who,
                            ATTACH_PATIENCE_MS);
        if (r == 0)
            *ahead = c->missing + n;
    }
    return r < 0 ? r : -EAGAIN;
}

/* One try. -EAGAIN: somebody went on, or cleaned up, meanwhile. */
static int try_to_take_over(struct volume *v, struct catchup *c, uint64_t *ahead)
{
    uint64_t again = 0;
    /* a sync for each commit that is read would take longer than all the rest, for nothing: what a
     * power cut takes away of it, the next mount reads again */
    int r = index_sync_later(v->index, true), end;

    if (r < 0)
        return r;
    r = catchup(v->log, v->index, c->ours_only, ATTACH_PATIENCE_MS, c);
    end = index_sync_later(v->index, false);
    r = r < 0 ? r : end;
    if (r == 0 && (r = claim(v, c)) == -EAGAIN)
        r = claim_ahead(v, c, ahead);
    if (r < 0)
        return r == -ENOENT ? -EAGAIN : r;
    r = checkpoint_newest(v->log, &again, ATTACH_PATIENCE_MS);
    /* a newer one means that what looked missing may have been deleted: then the claim is void */
    if (r == 0 && again > c->checkpoint)
        r = -EAGAIN;
    return r == 0 ? accept_claim(v, c) : r;
}

static int take_over(struct volume *v, struct catchup *c, uint64_t dirty_blocks)
{
    uint64_t ahead = 0, segments = 0;
    int r = -EAGAIN;

    for (int tries = 0; r == -EAGAIN && tries < CLAIM_TRIES; tries++) {
        r = try_to_take_over(v, c, &ahead);
        segments += c->segments;
    }
    c->segments = segments;
    if (r == -EAGAIN)
        return msg_error(-EBUSY, "%s: another machine is writing to it all the time; unmount there",
                         store_url(v->store));
    v->checkpoint_seq = c->checkpoint;
    return r == -ESTALE ? refuse_fork(v, c, dirty_blocks) : r;
}

/* ------------------------------------------------------------------ attaching */

/* What a process that was killed had written, and not synced, is seen from now on: the next flush
 * need not hear of it, and promises it all the same. */
static int settle_slots(struct volume *v)
{
    int r = slots_sync(v->slots);

    return r < 0 ? msg_error(-EIO, "%s: syncing the cache: %s", v->dir, strerror(-r)) : 0;
}

static int attach_with_index(struct volume *v)
{
    struct catchup c = {0};
    struct index_meta meta;
    struct dirt dirt;
    int r;

    index_get_meta(v->index, &meta);
    r = volume_trust(v, &dirt);
    c.ours_only = dirt.blocks > 0 && !v->cfg.discard_local;
    if (r == 0)
        r = volume_open_slots(v);
    if (r == 0 && !meta.clean)
        r = settle_slots(v);
    if (r == 0)
        r = volume_sync_dir(v);
    if (r ==
        0) /* what operations under way were promised, and have not filled yet, has a sixteenth */
        r = chunks_init(&v->chunks, v->slots, v->cfg.cache_bytes / BLOCK_BYTES / 16 * 15, v->clock);
    if (r == 0)
        r = log_new(v->store, &v->sb, v->clock, &v->log);
    if (r == 0)
        r = take_over(v, &c, dirt.blocks);
    if (r == 0)
        r = checkpointer_new(v, c.segments, &v->checkpointer);
    if (r < 0)
        return r;
    if (!v->sb.conditional_put)
        msg_warn("%s: this store has no conditional PUT: nothing keeps two machines from mounting "
                 "the volume for writing at once; take care that none does",
                 store_url(v->store));
    index_get_meta(v->index, &meta);
    v->chunks.allocated_blocks = meta.mapped_blocks;
    v->size_blocks = v->sealed_blocks = c.pos.size_blocks;
    if (v->marked && meta.local_blocks > v->size_blocks) { /* it grew, and only this cache knows */
        v->size_blocks = meta.local_blocks;
        v->size_changed = true;
    }
    v->commit_blocks = v->size_blocks;
    r = volume_adopt_cached(v);
    if (r < 0 || !v->marked)
        return r;
    if (v->nrecorded_dirty > 0 || v->size_changed)
        return volume_mark_unsynced(v); /* as of our epoch */
    v->marked = false; /* somebody else's size replaced ours, or all was uploaded */
    return volume_unmark_unsynced(v);
}

int volume_attach(struct volume *v)
{
    int r = v->cfg.unfinished ? superblock_load_any(v->store, &v->sb, ATTACH_PATIENCE_MS)
                              : superblock_load(v->store, &v->sb, ATTACH_PATIENCE_MS);

    if (r == 0)
        r = bases_open(v->store, &v->sb, ATTACH_PATIENCE_MS, &v->bases);
    if (r == 0)
        r = volume_open_own_dir(v);
    if (r == 0)
        r = volume_complete_config(v);
    if (r == 0)
        r = volume_open_index(v);
    if (r == 0)
        r = attach_with_index(v);
    if (r < 0 && (v->index_damaged || (v->index && index_damaged(v->index))))
        r = give_up_index(v);
    return r;
}
