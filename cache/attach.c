/*
 * Attaching: the cache directory is opened and believed as far as it may be; the map is brought up
 * to date from the bucket; the log is claimed. DESIGN.md says why this is safe.
 */
#include "catchup.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

enum { CLAIM_TRIES = 256, WHO_BYTES = 128 };

/* ------------------------------------------------------------------ the cache directory */

static int make_dirs(const char *path)
{
    char part[sizeof((struct volume *)0)->dir];

    for (const char *slash = path; (slash = strchr(slash + 1, '/')) != NULL;) {
        if (format(part, sizeof part, "%.*s", (int)(slash - path), path) < 0)
            return -ENAMETOOLONG;
        if (mkdir(part, 0700) < 0 && errno != EEXIST)
            return -errno;
    }
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_dir(struct volume *v)
{
    char uuid[UUID_TEXT_BYTES], path[sizeof v->dir + 16];
    int r;

    uuid_format(v->sb.uuid, uuid);
    r = format(v->dir, sizeof v->dir, "%s/%s", v->cfg.cache_dir, uuid);
    if (r == 0)
        r = make_dirs(v->dir);
    if (r == 0)
        r = format(path, sizeof path, "%s/lock", v->dir);
    if (r < 0)
        return msg_error(r, "%s: cache directory: %s", v->cfg.cache_dir, strerror(-r));
    v->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (v->lock_fd < 0)
        return msg_error(-errno, "%s: %s", path, strerror(errno));
    if (flock(v->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return msg_error(-EBUSY,
                         "%s: in use: the volume is mounted on this machine already; unmount it, "
                         "or use another --cache-dir",
                         v->dir);
    return 0;
}

static bool exists(struct volume *v, const char *name)
{
    char path[sizeof v->dir + 32];
    struct stat st;

    return format(path, sizeof path, "%s/%s", v->dir, name) == 0 && stat(path, &st) == 0;
}

int volume_remove_cache(struct volume *v)
{
    static const char *const names[] = {"index.db", "index.db-wal", "index.db-shm", "slots",
                                        "unsynced"};
    char path[sizeof v->dir + 32];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (format(path, sizeof path, "%s/%s", v->dir, names[i]) < 0 ||
            (unlink(path) < 0 && errno != ENOENT))
            return msg_error(-errno, "%s: cannot remove: %s", path, strerror(errno));
    return 0;
}

static int open_index(struct volume *v)
{
    char path[sizeof v->dir + 16];
    bool missing = !exists(v, "index.db");
    int r = format(path, sizeof path, "%s/index.db", v->dir);

    if (r == 0 && missing && exists(v, "unsynced") && !v->cfg.discard_local)
        return msg_error(-EIO,
                         "%s: index.db is gone, and with it data that is not in the bucket; "
                         "--discard-local mounts the volume as the bucket has it",
                         v->dir);
    if (r == 0)
        r = index_open(path, v->sb.uuid, &v->index);
    v->index_damaged = r == -EBADMSG;
    return r;
}

/* A damaged index is thrown away if that loses nothing: -EAGAIN, begin anew. */
static int give_up_index(struct volume *v)
{
    if (exists(v, "unsynced") && !v->cfg.discard_local)
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

struct local {
    uint64_t blocks;
};

static int count_dirty(void *ctx, const struct index_cached *row)
{
    struct local *l = ctx;

    l->blocks += mask_count(row->dirty);
    return 0;
}

/* After an unclean end only dirty blocks are believed. */
static int trust(struct volume *v)
{
    struct local l = {0};
    struct index_meta meta;
    int r = index_each_cached(v->index, count_dirty, &l);

    index_get_meta(v->index, &meta);
    v->marked = exists(v, "unsynced");
    bool none = l.blocks == 0 && meta.local_blocks <= meta.pos.size_blocks;
    if (r == 0 && v->marked && meta.clean && none && !v->cfg.discard_local)
        return msg_error(-EIO,
                         "%s: index.db is older than the rest, its -wal is gone, and with it data "
                         "that is not in the bucket; --discard-local mounts the volume as the "
                         "bucket has it",
                         v->dir);
    if (r < 0)
        return r;
    if (v->marked && !exists(v, "slots") && !v->cfg.discard_local)
        return msg_error(-EIO,
                         "%s: slots is gone, and with it data that is not in the bucket; "
                         "--discard-local mounts the volume as the bucket has it",
                         v->dir);
    if (v->cfg.discard_local || !exists(v, "slots"))
        r = index_forget(v->index, true);
    else if (!meta.clean)
        r = index_forget(v->index, false);
    if (r == 0 && v->cfg.discard_local) {
        r = volume_unmark_unsynced(v);
        v->marked = false;
    }
    return r;
}

/* ------------------------------------------------------------------ the claim */

static bool is_ours(const struct index_meta *meta, const struct log_position *pos)
{
    return memcmp(pos->nonce, meta->own_nonce, UUID_BYTES) == 0 ||
           memcmp(pos->nonce, meta->pending_nonce, UUID_BYTES) == 0;
}

/* What only this cache has must follow what this cache last attached; else somebody wrote the
 * volume since, and both cannot be true. */
static int check_fork(struct volume *v, const struct catchup *c)
{
    struct local l = {0};
    struct index_meta meta;
    char by[320];
    int r = index_each_cached(v->index, count_dirty, &l);

    index_get_meta(v->index, &meta);
    if (r < 0 || l.blocks == 0 || c->pos.epoch == 0 || is_ours(&meta, &c->pos))
        return r;
    r = log_describe_claim(v->log, c->pos.claim, by, sizeof by, ATTACH_PATIENCE_MS);
    if (r < 0)
        return r;
    return msg_error(
        -ESTALE,
        "%s: a fork: this cache (%s) has %" PRIu64
        " KiB that are not in the bucket, but the volume was attached elsewhere since, "
        "last by %s; --discard-local gives them up",
        store_url(v->store), v->dir, l.blocks * (BLOCK_BYTES / 1024), by);
}

static void describe_us(char *who, size_t size_bytes)
{
    char host[64] = "unknown";

    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(who, size_bytes, "host %s, process %d", host, (int)getpid());
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
    if (is_ours(&meta, &c->pos))
        memcpy(meta.own_nonce, c->pos.nonce, UUID_BYTES); /* pending no longer */
    else
        meta.local_blocks = 0;
    if (v->cfg.discard_local)
        meta.local_blocks = 0;
    if (memcmp(meta.pending_nonce, none, UUID_BYTES) == 0 ||
        memcmp(meta.pending_nonce, meta.own_nonce, UUID_BYTES) == 0)
        r = random_bytes(meta.pending_nonce, UUID_BYTES);
    meta.clean = false;                                     /* slots are about to change */
    if (r == 0 && memcmp(&meta, &before, sizeof meta) != 0) /* else a writer may be quicker again */
        r = index_put_meta(v->index, &meta);
    if (r < 0)
        return r;
    describe_us(who, sizeof who);
    r = log_claim(v->log, &c->pos, c->missing, meta.pending_nonce, who, ATTACH_PATIENCE_MS);
    if (r < 0)
        return r;
    r = index_apply(v->index, NULL, 0, 0, &c->pos, true);
    memcpy(meta.own_nonce, meta.pending_nonce, UUID_BYTES);
    return r == 0 ? index_put_meta(v->index, &meta) : r;
}

/* One try. -EAGAIN: somebody went on, or cleaned up, meanwhile. `*list`: begin with a listing. */
static int try_to_take_over(struct volume *v, struct catchup *c, bool *list)
{
    uint64_t again = 0;
    int r = *list ? catchup(v->log, v->index, ATTACH_PATIENCE_MS, c)
                  : catchup_follow(v->log, v->index, ATTACH_PATIENCE_MS, c);

    *list = r == -ENOENT;
    if (r == 0)
        r = check_fork(v, c);
    if (r == 0)
        r = claim(v, c);
    if (r < 0)
        return r == -ENOENT ? -EAGAIN : r;
    r = checkpoint_newest(v->log, &again, ATTACH_PATIENCE_MS);
    /* a newer one means that what looked missing may have been deleted */
    *list = true;
    return r == 0 && again > c->checkpoint ? -EAGAIN : r;
}

static int take_over(struct volume *v, struct catchup *c)
{
    bool list = true;
    int r = -EAGAIN;

    for (int tries = 0; r == -EAGAIN && tries < CLAIM_TRIES; tries++)
        r = try_to_take_over(v, c, &list);
    if (r == -EAGAIN)
        return msg_error(-EBUSY, "%s: another machine is writing to it all the time; unmount there",
                         store_url(v->store));
    v->checkpoint_seq = c->checkpoint;
    return r;
}

/* ------------------------------------------------------------------ what is cached */

struct adopting {
    struct volume *v;
    uint64_t nslots; /* in the file */
    uint32_t *slots; /* those in use */
    size_t n, room;
    bool damaged, dirty; /* rows contradict each other, or the file; there are dirty ones */
};

/* What a row says of its chunk, seen with the map. */
static void adopted_masks(const struct index_cached *row, uint64_t *ret_valid, uint64_t *ret_zero)
{
    *ret_zero = (row->zero & row->valid) | (~row->mapped & ~row->dirty);
    *ret_valid = row->valid | *ret_zero;
}

/* Were such a block uploaded, nobody could read the log any more. */
static bool is_beyond(const struct volume *v, const struct index_cached *row)
{
    uint64_t block = row->chunk * CHUNK_BLOCKS;

    return row->chunk >= VOLUME_BLOCKS_MAX / CHUNK_BLOCKS || block >= v->size_blocks ||
           (v->size_blocks - block < CHUNK_BLOCKS && row->dirty >> (v->size_blocks - block) != 0);
}

static int look_at_row(void *ctx, const struct index_cached *row)
{
    struct adopting *a = ctx;
    uint64_t valid, zero;

    if (!row->dirty && is_beyond(a->v, row))
        return 0; /* the volume has shrunk since */
    adopted_masks(row, &valid, &zero);
    a->dirty = a->dirty || row->dirty;
    if (row->zero & ~row->valid || row->dirty & ~row->valid ||
        (valid & ~zero && row->slot >= a->nslots) || is_beyond(a->v, row))
        a->damaged = true;
    if (!(valid & ~zero))
        return 0;
    if (a->n == a->room) {
        size_t room = MAX(2 * a->room, (size_t)1024);
        uint32_t *more = realloc(a->slots, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        a->slots = more;
        a->room = room;
    }
    a->slots[a->n++] = row->slot;
    return 0;
}

static int adopt_row(void *ctx, const struct index_cached *row)
{
    struct adopting *a = ctx;
    struct volume *v = a->v;
    uint64_t valid, zero;

    if (!row->dirty && is_beyond(v, row))
        return 0;
    struct chunk *c = chunks_add(&v->chunks, row->chunk, row->mapped);
    if (!c)
        return -ENOMEM;
    adopted_masks(row, &valid, &zero);
    if (valid & ~zero)
        c->slot = row->slot;
    if (valid & ~zero && row->sums)
        slots_set_sums(v->slots, c->slot, row->sums);
    c->recorded_dirty = row->dirty != 0;
    v->nrecorded_dirty += c->recorded_dirty;
    chunk_set(&v->chunks, c, valid, zero, row->dirty);
    return 0;
}

/* Rows that cannot be true: an empty cache then, unless that would lose something. */
static int give_up_cached(struct volume *v, const struct adopting *a)
{
    if (a->dirty)
        return msg_error(-EBADMSG,
                         "%s: damaged: index.db and slots contradict each other, and there is data "
                         "that is not in the bucket; --discard-local gives it up",
                         v->dir);
    msg_warn("%s: index.db and slots contradict each other: starting with an empty cache", v->dir);
    return index_forget(v->index, true);
}

static int adopt_cached(struct volume *v)
{
    struct adopting a = {.v = v, .nslots = slots_count(v->slots)};
    int r = index_each_cached(v->index, look_at_row, &a);

    if (r == 0)
        r = a.damaged ? -EBADMSG : chunks_adopt_slots(&v->chunks, a.slots, a.n);
    if (r == -EBADMSG)
        r = give_up_cached(v, &a);
    else if (r == 0)
        r = index_each_cached(v->index, adopt_row, &a);
    if (r == 0)
        r = slots_truncate(v->slots, v->chunks.fresh_slot);
    if (r == 0 && v->cfg.sync == SYNC_CACHE) /* in bucket mode they stay as they are till then */
        r = index_forget_sums(v->index);
    free(a.slots);
    v->dirty_since_ms = v->clock->now_ms();
    return r;
}

static int open_slots(struct volume *v)
{
    char path[sizeof v->dir + 16];
    int r = format(path, sizeof path, "%s/slots", v->dir);

    if (r == 0)
        r = slots_open(path, &v->slots);
    return r < 0 ? msg_error(r, "%s: %s", path, strerror(-r)) : 0;
}

/* The files are there after a power cut, too, before "unsynced" can say that they must be. */
static int sync_dir(struct volume *v)
{
    scope_close int dir = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return dir < 0 || fsync(dir) < 0 ? msg_error(-errno, "%s: %s", v->dir, strerror(errno)) : 0;
}

static int attach_with_index(struct volume *v)
{
    struct catchup c = {0};
    struct index_meta meta;
    int r = trust(v);

    if (r == 0)
        r = open_slots(v);
    if (r == 0)
        r = sync_dir(v);
    if (r ==
        0) /* what operations under way were promised, and have not filled yet, has a sixteenth */
        r = chunks_init(&v->chunks, v->slots, v->cfg.cache_bytes / BLOCK_BYTES / 16 * 15, v->clock);
    if (r == 0)
        r = log_new(v->store, &v->sb, v->clock, &v->log);
    if (r == 0)
        r = take_over(v, &c);
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
    if (meta.local_blocks > v->size_blocks) { /* it grew, and only this cache knows */
        v->size_blocks = meta.local_blocks;
        v->size_changed = true;
    }
    v->commit_blocks = v->size_blocks;
    return adopt_cached(v);
}

int volume_attach(struct volume *v)
{
    int r = superblock_load(v->store, &v->sb, ATTACH_PATIENCE_MS);

    if (r == 0)
        r = bases_open(v->store, &v->sb, ATTACH_PATIENCE_MS, &v->bases);
    if (r == 0)
        r = open_dir(v);
    if (r == 0)
        r = volume_complete_config(v);
    if (r == 0)
        r = open_index(v);
    if (r == 0)
        r = attach_with_index(v);
    if (r < 0 && (v->index_damaged || (v->index && index_damaged(v->index))))
        r = give_up_index(v);
    return r;
}
