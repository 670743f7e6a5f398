/*
 * A volume's directory on the cache disk: its lock, its files, and the rows of its index that
 * become chunks again. What of it may be believed is for attach.c and view.c to say.
 */
#include "offline.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

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

int volume_open_dir(struct volume *v, const char *name)
{
    char path[sizeof v->dir + 16];
    int r = format(v->dir, sizeof v->dir, "%s/%s", v->cfg.cache_dir, name);

    if (r == 0)
        r = make_dirs(v->dir);
    if (r == 0)
        r = format(path, sizeof path, "%s/lock", v->dir);
    if (r < 0)
        return msg_error(r, "%s: cache directory: %s", v->cfg.cache_dir, strerror(-r));
    v->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (v->lock_fd < 0)
        return msg_error(-errno, "%s: %s", path, strerror(errno));
    if (flock(v->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    close(v->lock_fd);
    v->lock_fd = -1;
    return -EBUSY;
}

int volume_open_own_dir(struct volume *v)
{
    char name[UUID_TEXT_BYTES];

    uuid_format(v->sb.uuid, name);
    int r = volume_open_dir(v, name);
    return r == -EBUSY ? msg_error(r,
                                   "%s: in use: the volume is mounted on this machine already; "
                                   "unmount it first",
                                   v->dir)
                       : r;
}

bool volume_has_file(struct volume *v, const char *name)
{
    char path[sizeof v->dir + 32];
    struct stat st;

    return format(path, sizeof path, "%s/%s", v->dir, name) == 0 && stat(path, &st) == 0;
}

static int remove_files(const char *dir)
{
    static const char *const names[] = {"index.db", "index.db-wal", "index.db-shm",
                                        "slots",    "sums",         "unsynced"};
    char path[sizeof((struct volume *)0)->dir + 32];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (format(path, sizeof path, "%s/%s", dir, names[i]) < 0 ||
            (unlink(path) < 0 && errno != ENOENT))
            return msg_error(-errno, "%s: cannot remove: %s", path, strerror(errno));
    return 0;
}

int volume_remove_cache(struct volume *v)
{
    return remove_files(v->dir);
}

void volume_remove_dir(const char *dir)
{
    char path[sizeof((struct volume *)0)->dir + 32];

    if (remove_files(dir) == 0 && format(path, sizeof path, "%s/lock", dir) == 0 &&
        unlink(path) == 0)
        (void)rmdir(dir);
}

int volume_open_index(struct volume *v)
{
    char path[sizeof v->dir + 16];
    bool missing = !volume_has_file(v, "index.db");
    int r = format(path, sizeof path, "%s/index.db", v->dir);

    if (r == 0 && missing && volume_has_file(v, "unsynced") && !v->cfg.discard_local)
        return msg_error(-EIO,
                         "%s: index.db is gone, and with it data that is not in the bucket; "
                         "--discard-local mounts the volume as the bucket has it",
                         v->dir);
    if (r == 0)
        r = index_open(path, v->sb.uuid, &v->index);
    v->index_damaged = r == -EBADMSG;
    return r;
}

/* ------------------------------------------------------------------ what is cached */

struct adopting {
    struct volume *v;
    uint64_t nslots; /* in the file */
    uint32_t *slots; /* those in use */
    size_t n, room;
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

static int adopt_slot(struct adopting *a, struct chunk *c, const struct index_cached *row)
{
    int r = slots_reserve(a->v->slots, row->slot);

    if (r == 0 && a->n == a->room) {
        size_t room = MAX(2 * a->room, (size_t)1024);
        uint32_t *more = realloc(a->slots, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        a->slots = more;
        a->room = room;
    }
    if (r < 0)
        return r;
    a->slots[a->n++] = c->slot = row->slot;
    if (row->sums || row->dirty) /* of a row that is dirty the file may not know */
        r = slots_set_sums(a->v->slots, c->slot, row->sums);
    return r;
}

/* -EBADMSG: rows contradict each other, or the file. */
static int adopt_row(void *ctx, const struct index_cached *row)
{
    struct adopting *a = ctx;
    struct volume *v = a->v;
    uint64_t valid, zero;

    if (!row->dirty && is_beyond(v, row))
        return 0; /* the volume has shrunk since */
    adopted_masks(row, &valid, &zero);
    if (row->zero & ~row->valid || row->dirty & ~row->valid ||
        (valid & ~zero && row->slot >= a->nslots) || is_beyond(v, row))
        return -EBADMSG;
    struct chunk *c = chunks_add(&v->chunks, row->chunk, row->mapped);
    int r = !c ? -ENOMEM : valid & ~zero ? adopt_slot(a, c, row) : 0;
    if (r < 0)
        return r;
    c->recorded_dirty = row->dirty != 0;
    v->nrecorded_dirty += c->recorded_dirty;
    chunk_set(&v->chunks, c, valid, zero, row->dirty);
    return 0;
}

/* Rows that cannot be true: an empty cache then, unless that would lose something. */
static int give_up_cached(struct volume *v)
{
    struct dirt dirt = {0};
    struct index_meta meta;
    int r = index_count_dirty(v->index, &dirt.chunks, &dirt.blocks);

    if (r == 0 && dirt.chunks > 0)
        return msg_error(-EBADMSG,
                         "%s: damaged: index.db and slots contradict each other, and there is data "
                         "that is not in the bucket; --discard-local gives it up",
                         v->dir);
    if (r == 0)
        msg_warn("%s: index.db and slots contradict each other: starting with an empty cache",
                 v->dir);
    if (r == 0)
        r = chunks_clear(&v->chunks);
    index_get_meta(v->index, &meta);
    v->chunks.allocated_blocks = meta.mapped_blocks;
    return r == 0 ? index_forget(v->index, true) : r;
}

int volume_adopt_cached(struct volume *v)
{
    struct adopting a = {.v = v, .nslots = slots_count(v->slots)};
    int r = slots_begin(v->slots);

    if (r < 0)
        return msg_error(r, "%s: sums: %s", v->dir, strerror(-r));
    r = index_each_cached(v->index, adopt_row, &a);
    if (r == 0)
        r = chunks_adopt_slots(&v->chunks, a.slots, a.n);
    if (r == -EBADMSG && !index_damaged(v->index))
        r = give_up_cached(v);
    if (r == 0)
        r = slots_truncate(v->slots, v->chunks.fresh_slot);
    if (r == 0 && v->cfg.sync == SYNC_CACHE) /* in bucket mode they stay as they are till then */
        r = index_forget_sums(v->index);
    free(a.slots);
    v->dirty_since_ms = v->clock->now_ms();
    return r;
}

int volume_open_slots(struct volume *v)
{
    struct index_meta meta;
    int r = slots_open(v->dir, &v->slots);

    if (r < 0)
        return msg_error(r, "%s: opening slots and sums: %s", v->dir, strerror(-r));
    index_get_meta(v->index, &meta);
    if (!meta.clean || (meta.life && meta.life == slots_life(v->slots)))
        return 0;
    msg_warn(
        "%s: sums is gone, or index.db is an older one: what is in the bucket is fetched again",
        v->dir);
    return index_forget(v->index, false);
}

int volume_sync_dir(struct volume *v)
{
    scope_close int dir = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return dir < 0 || fsync(dir) < 0 ? msg_error(-errno, "%s: %s", v->dir, strerror(errno)) : 0;
}
