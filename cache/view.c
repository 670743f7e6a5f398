/*
 * A view: a volume that is only read, as of one instant. No claim and no thread that writes; a
 * cache directory of its own. A snapshot's is as warm as it was left, whatever happened to the
 * volume; the volume's own is brought up to date. follow.c goes on from there. A fork's is the one
 * of whoever wrote it.
 */
#include "catchup.h"
#include "snapshot.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/pin.h"
#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

enum { DIRS_MAX = 64, TRIES = 16, NAMED_MAX = 10 };

/* ------------------------------------------------------------------ the snapshot */

struct naming {
    char text[NAMED_MAX * (PIN_NAME_MAX + 2)];
    unsigned n;
};

static int add_name(void *ctx, const char *key, uint64_t size_bytes)
{
    struct naming *naming = ctx;
    char name[PIN_NAME_MAX];
    size_t len = strlen(naming->text);

    (void)size_bytes;
    if (!pin_parse_key(key, name) || strncmp(name, "clone-", 6) == 0 || ++naming->n > NAMED_MAX)
        return 0;
    return format(naming->text + len, sizeof naming->text - len, "%s%s", len ? ", " : "", name);
}

static int no_such_snapshot(struct volume *v)
{
    struct naming naming = {0};
    char more[32] = "";
    int r = store_list(v->store, "snapshot/", "", add_name, &naming, ATTACH_PATIENCE_MS);

    if (r < 0)
        return r;
    if (naming.n > NAMED_MAX)
        (void)snprintf(more, sizeof more, " and %u more", naming.n - NAMED_MAX);
    if (naming.n == 0)
        return msg_error(-ENOENT, "%s@%s: there is no such snapshot, nor any other",
                         store_url(v->store), v->cfg.snapshot);
    return msg_error(-ENOENT, "%s@%s: there is no such snapshot; there are %s%s",
                     store_url(v->store), v->cfg.snapshot, naming.text, more);
}

/* 2026-11-25T18:00:00Z */
static int64_t wall_ms_of(const char *created)
{
    struct tm tm = {0};

    return strptime(created, "%Y-%m-%dT%H:%M:%SZ", &tm) ? (int64_t)timegm(&tm) * 1000 : 0;
}

static int find_snapshot(struct volume *v, struct pin *pin)
{
    int r = pin_load(v->store, &v->sb, v->cfg.snapshot, pin, ATTACH_PATIENCE_MS);

    if (r == -ENOENT)
        return no_such_snapshot(v);
    v->newest_ms = r == 0 ? wall_ms_of(pin->created) : 0;
    return r;
}

int volume_gone(struct volume *v, const char *url, uint64_t seq)
{
    struct pin pin;
    bool told;
    int r = 0;

    pthread_mutex_lock(&v->chunks.lock);
    told = v->gone;
    v->gone = true;
    pthread_mutex_unlock(&v->chunks.lock);
    if (told || v->cfg.fork) /* fork.c tells of every block */
        return -EIO;
    if (v->cfg.snapshot)
        r = pin_load(v->store, &v->sb, v->cfg.snapshot, &pin, volume_patience_ms(v));
    if (r == -ENOENT)
        msg_error(r,
                  "%s@%s: the snapshot was deleted, and what it kept is being deleted "
                  "(log/%016" PRIx64 "); unmount",
                  store_url(v->store), v->cfg.snapshot, seq);
    else if (v->cfg.snapshot)
        msg_error(r, "%s: log/%016" PRIx64 ": is missing; see `s3vol check`", url, seq);
    else
        msg_error(
            -ENOENT,
            "%s: log/%016" PRIx64
            ": is not there any more: the volume was written since, and what is read here is "
            "reclaimed (see --gc-grace); begin again, with a snapshot, or mount with --follow",
            url, seq);
    return -EIO;
}

/* ------------------------------------------------------------------ the cache */

/* The first directory that no other mount has: of a snapshot UUID@NAME, UUID@NAME~2 and so on (no
 * snapshot has a ~ in its name), of the volume as it is now UUID.ro-1 and so on. */
static int open_dir(struct volume *v)
{
    char uuid[UUID_TEXT_BYTES], name[UUID_TEXT_BYTES + PIN_NAME_MAX + 16];
    int r = -EBUSY;

    if (v->cfg.fork)
        return volume_open_own_dir(v);
    uuid_format(v->sb.uuid, uuid);
    for (unsigned i = 1; i <= DIRS_MAX && r == -EBUSY; i++) {
        if (!v->cfg.snapshot)
            r = format(name, sizeof name, "%s.ro-%u", uuid, i);
        else if (i == 1)
            r = format(name, sizeof name, "%s@%s", uuid, v->cfg.snapshot);
        else
            r = format(name, sizeof name, "%s@%s~%u", uuid, v->cfg.snapshot, i);
        if (r == 0)
            r = volume_open_dir(v, name);
    }
    return r == -EBUSY ? msg_error(r, "%s: in use: it is mounted %d times on this machine already",
                                   v->dir, DIRS_MAX)
                       : r;
}

static int empty_cache(struct volume *v)
{
    index_close(v->index);
    v->index = NULL;
    int r = volume_remove_cache(v);
    return r == 0 ? volume_open_index(v) : r;
}

/* Nothing in it is news to anybody. After an unclean end no block is believed, but the map, which
 * only changes in transactions. */
static int trust(struct volume *v, struct dirt *ret_dirt)
{
    struct index_meta meta;

    *ret_dirt = (struct dirt){0};
    if (v->cfg.fork)
        return volume_trust(v, ret_dirt);
    index_get_meta(v->index, &meta);
    return meta.clean && volume_has_file(v, "slots") ? 0 : index_forget(v->index, true);
}

/* Before slots change. */
static int mark_in_use(struct volume *v)
{
    struct index_meta meta;

    index_get_meta(v->index, &meta);
    meta.clean = false;
    return index_put_meta(v->index, &meta);
}

/* ------------------------------------------------------------------ the instant */

/* The volume's uuid, which the directory and the index have, and a number of its log say what the
 * map is; a name may have been used again. A root that is not there any more: the pin tells. */
static int go_to_snapshot(struct volume *v, struct pin *pin, struct catchup *c)
{
    struct index_meta meta;
    int r = 0;

    index_get_meta(v->index, &meta);
    c->pos = meta.pos;
    c->checkpoint = pin->root;
    if (!meta.fresh && meta.pos.seq == pin->seq && meta.pos.size_blocks)
        return 0;
    if (!meta.fresh)
        r = empty_cache(v);
    if (r == 0)
        r = catchup_to(v->log, v->index, pin->root, pin->seq, ATTACH_PATIENCE_MS, c);
    if (r != -ENOENT)
        return r;
    r = find_snapshot(v, pin);
    return r < 0 ? r
                 : msg_error(
                       -EIO,
                       "%s@%s: its checkpoint, or the log behind it, is missing; see `s3vol check`",
                       store_url(v->store), v->cfg.snapshot);
}

/* The newest instant. What looked like the log's end may be a number that was deleted: not so, if
 * no root is beyond it that was not before. */
static int go_to_newest(struct volume *v, struct catchup *c)
{
    uint64_t root = 0;
    int r = -ENOENT;

    for (int tries = 0; r == -ENOENT && tries < TRIES; tries++) {
        v->newest_ms = v->clock->now_ms();
        r = catchup(v->log, v->index, false, ATTACH_PATIENCE_MS, c);
        if (r == 0)
            r = checkpoint_newest(v->log, &root, ATTACH_PATIENCE_MS);
        if (r == 0 && root > c->pos.seq)
            r = -ENOENT;
    }
    if (r == -ENOENT)
        return msg_error(-EAGAIN, "%s: changed while it was being read; try again",
                         store_url(v->store));
    if (r == 0 && c->pos.seq == 0 && v->sb.nbases == 0)
        return msg_error(-ENODATA,
                         "%s: nothing was ever written to it: there is nothing to read; mount it "
                         "for writing first",
                         store_url(v->store));
    return r;
}

/* The last instant before somebody else attached. */
static int go_to_fork(struct volume *v, struct catchup *c, bool dirty)
{
    struct index_meta meta;
    int r;

    if (!dirty)
        return msg_error(-ENODATA,
                         "%s: no fork: the cache on this machine (%s) has nothing that the bucket "
                         "has not",
                         store_url(v->store), v->dir);
    r = catchup(v->log, v->index, true, ATTACH_PATIENCE_MS, c);
    if (r == -ENOENT)
        return msg_error(-EAGAIN, "%s: changed while it was being read; try again",
                         store_url(v->store));
    if (r == 0)
        return msg_error(-EINVAL,
                         "%s: no fork: nobody else attached since it was attached here (%s); mount "
                         "it, and everything is there",
                         store_url(v->store), v->dir);
    index_get_meta(v->index, &meta);
    c->pos = meta.pos;
    c->pos.size_blocks = MAX(meta.pos.size_blocks, meta.local_blocks);
    return r == -ESTALE ? 0 : r;
}

static int attach_with_index(struct volume *v, struct pin *pin)
{
    struct catchup c = {0};
    struct index_meta meta;
    struct dirt dirt = {0};
    int r = log_new(v->store, &v->sb, v->clock, &v->log);

    if (r == 0)
        r = trust(v, &dirt);
    if (r == 0)
        r = v->cfg.fork ? go_to_fork(v, &c, dirt.chunks > 0)
            : pin       ? go_to_snapshot(v, pin, &c)
                        : go_to_newest(v, &c);
    if (r == 0)
        r = volume_open_slots(v);
    /* what is dirty stays, and is not to be in the way of what is read */
    uint64_t stays = MAX(dirt.blocks, dirt.chunks * SLOT_BLOCKS_LEAST);
    if (r == 0)
        r = chunks_init(&v->chunks, v->slots, v->cfg.cache_bytes / BLOCK_BYTES / 16 * 15 + stays,
                        v->clock);
    if (r == 0)
        r = mark_in_use(v);
    if (r < 0)
        return r;
    index_get_meta(v->index, &meta);
    v->chunks.allocated_blocks = meta.mapped_blocks;
    v->size_blocks = c.pos.size_blocks;
    v->at = c.pos;
    v->missing = c.missing;
    v->checkpoint_seq = c.checkpoint;
    return volume_adopt_cached(v);
}

int volume_attach_view(struct volume *v)
{
    struct pin pin;
    int r;

    v->cfg.sync = SYNC_BUCKET;
    store_forbid_writes(v->store);
    r = superblock_load(v->store, &v->sb, ATTACH_PATIENCE_MS);
    if (r == 0)
        r = bases_open(v->store, &v->sb, ATTACH_PATIENCE_MS, &v->bases);
    if (r == 0 && v->cfg.snapshot)
        r = clone_refuse_name(v->store, v->cfg.snapshot);
    if (r == 0 && v->cfg.snapshot)
        r = find_snapshot(v, &pin);
    if (r == 0)
        r = open_dir(v);
    if (r == 0)
        r = volume_complete_config(v);
    if (r == 0)
        r = volume_open_index(v);
    if (r == 0)
        r = attach_with_index(v, v->cfg.snapshot ? &pin : NULL);
    if (r == 0 || !(v->index_damaged || (v->index && index_damaged(v->index))))
        return r;
    if (v->cfg.fork)
        return msg_error(-EBADMSG, "%s: index.db is damaged, and with it what the volume was here",
                         v->dir);
    msg_warn("%s: index.db is damaged: starting with an empty cache", v->dir);
    index_close(v->index);
    v->index = NULL;
    r = volume_remove_cache(v);
    return r == 0 ? -EAGAIN : r;
}
