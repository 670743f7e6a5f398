/*
 * A view that follows the volume's writer. One thread looks for the next number of the log, and
 * reads on; now and then, whether a checkpoint is beyond it: then what it waits for may have been
 * deleted, and it starts over from there. What it shows changes in switch.c.
 */
#include "catchup.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

enum {
    LIST_LOOKS = 10,    /* between looks at the checkpoints, so many at the log … */
    LIST_MS = 60000,    /* … or this time, whichever is shorter */
    DAMAGED_MS = 60000, /* … and at what is damaged */
    FEW_COMMITS = 8,    /* are read one after the other; more with a listing, many at once */
    BATCH_ENTRIES = 16384,
    START_TRIES = 16,
};

struct follower {
    struct volume *v;
    struct log_position pos; /* read so far */
    struct entry *entries;   /* of whole commits up to it, not published yet */
    size_t n, room;
    unsigned commits, most; /* read one after the other; 0: as many as there are */
    bool stopped;           /* before the log's end */
    struct header rollback; /* a claim that means a new map; its kind is 0: none */
    int64_t listed_ms;
};

static int flush(struct follower *f)
{
    if (f->pos.seq == f->v->at.seq)
        return 0;
    int r = volume_switch_by(f->v, f->entries, f->n, &f->pos);
    f->n = 0;
    return r;
}

static int add_entries(struct follower *f, const struct entry *entries, size_t n)
{
    if (f->n + n > f->room) {
        size_t room = MAX(2 * f->room, f->n + n);
        struct entry *more = realloc(f->entries, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        f->entries = more;
        f->room = room;
    }
    if (n > 0)
        memcpy(f->entries + f->n, entries, n * sizeof *entries);
    f->n += n;
    return 0;
}

static int gather(void *ctx, const struct header *last, const struct entry *entries, size_t n,
                  const struct log_position *pos)
{
    struct follower *f = ctx;
    int r = 0;

    if (last->kind == HEADER_CLAIM && last->flags & HEADER_ROLLBACK) {
        f->rollback = *last;
        f->stopped = true;
    } else {
        r = add_entries(f, entries, n);
    }
    if (r < 0)
        return r;
    f->pos = *pos;
    if (!f->stopped && f->n >= BATCH_ENTRIES)
        r = flush(f);
    f->stopped = f->stopped || ++f->commits == f->most;
    return r < 0 ? r : f->stopped;
}

/* To a whole new map. */
struct change {
    struct volume *v;
    struct index_view *old; /* the map before; not while the new one is loaded, or the -wal would
                               get as large as that */
};

static int enter(void *ctx)
{
    struct change *ch = ctx;
    struct log_position pos;
    int r = index_view_begin(ch->v->index, &ch->old, &pos);

    if (r == 0)
        volume_switch_begin(ch->v);
    return r;
}

static int roll_back(struct follower *f)
{
    struct volume *v = f->v;
    struct change ch = {.v = v};
    const struct catchup_gate gate = {enter, &ch};

    f->n = 0; /* what came before is not what it is any more */
    int r = catchup_roll_back(v->log, v->index, &f->rollback, &f->pos, STORE_FOREVER, &gate);
    r = volume_switch_map(v, ch.old, &f->pos, r);
    index_view_end(ch.old);
    return r;
}

/* From what is shown up to the log's end. -ENOENT: start over. */
static int read_on(struct follower *f)
{
    struct volume *v = f->v;
    struct log_position pos = v->at;
    uint64_t missing = v->missing;
    int r;

    f->pos = pos;
    f->n = 0;
    f->most = FEW_COMMITS;
    do {
        f->stopped = false;
        f->commits = 0;
        f->rollback.kind = 0;
        r = f->most ? log_follow(v->log, &pos, gather, f, STORE_FOREVER, &missing)
                    : log_replay(v->log, &pos, gather, f, STORE_FOREVER, &missing);
        if (r == 0)
            r = f->rollback.kind ? roll_back(f) : flush(f);
        f->most = 0;
    } while (r == 0 && f->stopped);
    if (r == 0)
        v->missing = missing;
    return r;
}

/* What there is of a commit that its writer never finished is not read again and again: only
 * whether the first missing number is there now. */
static int look_at_log(struct follower *f)
{
    scope_free struct entry *entries = NULL;
    struct header there;
    int r = log_read(f->v->log, f->v->missing, &there, &entries, STORE_FOREVER);

    return r == 0 ? read_on(f) : r == -ENOENT ? 0 : r;
}

/* -ENOENT: one is beyond what is shown, so what comes next may have been deleted. */
static int look_at_roots(struct follower *f)
{
    uint64_t root;
    int r = checkpoint_newest(f->v->log, &root, STORE_FOREVER);

    f->listed_ms = f->v->clock->now_ms();
    return r < 0 ? r : root > f->v->at.seq ? -ENOENT : 0;
}

static int start_over(struct follower *f)
{
    struct volume *v = f->v;
    struct log_position pos = {0};
    int r = -ENOENT;

    for (int tries = 0; r == -ENOENT && tries < START_TRIES; tries++) {
        struct change ch = {.v = v};
        const struct catchup_gate gate = {enter, &ch};
        uint64_t root;
        r = checkpoint_newest(v->log, &root, STORE_FOREVER);
        if (r < 0)
            return r;
        r = root > v->at.seq ? catchup_load(v->log, v->index, root, STORE_FOREVER, &gate, &pos)
                             : -ENOENT;
        r = volume_switch_map(v, ch.old, &pos, r);
        index_view_end(ch.old);
        if (r == 0)
            r = read_on(f);
    }
    return r == -ENOENT
               ? msg_error(-EAGAIN, "%s: changes faster than it can be read", store_url(v->store))
               : r;
}

static int look(struct follower *f, bool thorough)
{
    struct volume *v = f->v;
    int64_t began = v->clock->now_ms(), list_ms = MIN(LIST_LOOKS * v->cfg.follow_ms, LIST_MS);
    int r = look_at_log(f);

    if (r == -EBADMSG || r == -EPROTONOSUPPORT || /* unless a repair is behind it */
        (r == 0 && (thorough || began - f->listed_ms >= list_ms))) {
        int roots = look_at_roots(f);
        r = roots < 0 ? roots : r;
    }
    if (r == -ENOENT)
        r = start_over(f);
    free(f->entries);
    f->entries = NULL;
    f->n = f->room = 0;
    if (r == 0) {
        scope_lock(&v->chunks.lock);
        v->newest_ms = began;
    }
    return r;
}

void *volume_follower(void *arg)
{
    struct volume *v = arg;
    struct follower f = {.v = v, .listed_ms = v->clock->now_ms()};
    int64_t due = f.listed_ms + v->cfg.follow_ms;

    pthread_mutex_lock(&v->chunks.lock);
    while (!v->stopping) {
        uint64_t asked = v->looks_asked;
        if (asked == v->looks_made && v->clock->now_ms() < due) {
            v->clock->wait_until(&v->commit_moved, &v->chunks.lock, due);
            continue;
        }
        bool thorough = asked != v->looks_made;
        pthread_mutex_unlock(&v->chunks.lock);
        int r = look(&f, thorough);
        pthread_mutex_lock(&v->chunks.lock);
        v->looks_made = asked;
        chunks_changed(&v->chunks);
        due = v->clock->now_ms() + (r == 0 ? v->cfg.follow_ms : MAX(v->cfg.follow_ms, DAMAGED_MS));
    }
    pthread_mutex_unlock(&v->chunks.lock);
    return NULL;
}
