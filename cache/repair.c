/*
 * volume_repair(): what an attachment cannot read any more goes back to the newest instant that can
 * be read. The log's end is claimed, as by an attachment, and a checkpoint as of that claim is
 * stored, whose map is that instant's: from then on everybody begins there. Nothing is overwritten
 * or deleted. store/DESIGN.md ("Repair") says why that is safe.
 */
#include "offline.h"
#include "catchup.h"
#include "scratch.h"

#include "../store/checkpoint.h"
#include "../store/msg.h"
#include "../store/pipeline.h"
#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum { REPAIR_PATIENCE_MS = 60000, REPAIR_TRIES = 16 };

struct numbers {
    uint64_t *seqs; /* ascending */
    size_t n, room;
};

struct repair {
    struct store *store;
    struct superblock sb;
    struct scratch *scratch;
    struct log_position pos; /* the newest instant that can be read; its map is in the index */
    uint64_t newest_root;    /* that is there, good or not; 0: none */
    bool apply_failed;       /* that is about this machine, not about the bucket */
    struct volume_repair plan;

    struct numbers tail;   /* the objects of the log behind that instant */
    uint64_t acknowledged; /* all numbers below it were, or a claim jumped over them */
    uint64_t epoch;        /* the newest seen */
    struct numbers jumps;  /* of the tail: not readable, or a claim ahead: may lead on behind it */
};

static bool is_damage(int err)
{
    return err == -EBADMSG || err == -EPROTONOSUPPORT || err == -EIO;
}

static int add_number(struct numbers *to, uint64_t seq)
{
    if (to->n == to->room) {
        size_t room = MAX(2 * to->room, (size_t)256);
        uint64_t *more = realloc(to->seqs, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        to->seqs = more;
        to->room = room;
    }
    to->seqs[to->n++] = seq;
    return 0;
}

static int add_seq(void *ctx, const char *key, uint64_t size_bytes)
{
    uint64_t seq;

    (void)size_bytes;
    return log_parse_key(key, &seq) ? add_number(ctx, seq) : 0;
}

static int add_root(void *ctx, const char *key, uint64_t size_bytes)
{
    uint64_t seq;

    (void)size_bytes;
    return checkpoint_parse_key(key, &seq) ? add_number(ctx, seq) : 0;
}

/* ------------------------------------------------------------------ the newest instant */

static int apply(void *ctx, const struct header *last, const struct entry *entries, size_t nentries,
                 const struct log_position *pos)
{
    struct repair *rp = ctx;
    uint64_t nsegments = last->kind == HEADER_SEGMENT ? last->seq - last->first + 1 : 0;
    bool rolls_back = last->kind == HEADER_CLAIM && last->flags & HEADER_ROLLBACK;
    int r = rolls_back ? catchup_roll_back(rp->scratch->log, rp->scratch->index, last, pos,
                                           REPAIR_PATIENCE_MS, NULL)
                       : index_apply(rp->scratch->index, entries, nentries, nsegments, pos, false);

    rp->apply_failed = r < 0;
    if (nsegments > 0) {
        rp->plan.seq = last->seq;
        rp->plan.wall_ms = last->wall_ms;
    }
    return r;
}

static int reload_add(void *ctx, const struct entry *entries, size_t nentries)
{
    struct repair *rp = ctx;
    int r = index_reload_add(rp->scratch->index, entries, nentries);

    rp->apply_failed = r < 0;
    return r;
}

/* 1: this one cannot be read. */
static int try_root(struct repair *rp, uint64_t seq)
{
    struct index *ix = rp->scratch->index;
    int r = index_reload_begin(ix);

    if (r < 0)
        return r;
    r = checkpoint_load(rp->scratch->log, seq, reload_add, rp, REPAIR_PATIENCE_MS, &rp->pos);
    int end = index_reload_end(ix, &rp->pos, r == 0);
    if (r == 0)
        return end;
    return !rp->apply_failed && (is_damage(r) || r == -ENOENT) ? 1 : r;
}

/* A root is of an instant in the log, so none is better than the newest good one. Without any the
 * log may be there from its beginning. */
static int load_newest_good_root(struct repair *rp)
{
    struct numbers roots = {0};
    int bad = 1;
    int r = store_list(rp->store, "map/", "", add_root, &roots, REPAIR_PATIENCE_MS);

    rp->newest_root = roots.n ? roots.seqs[roots.n - 1] : 0;
    for (size_t i = roots.n; i > 0 && r == 0 && bad; i--) {
        bad = try_root(rp, roots.seqs[i - 1]);
        r = MIN(bad, 0);
        if (bad == 0)
            rp->plan.checkpoint = roots.seqs[i - 1];
    }
    free(roots.seqs);
    if (r == 0 && bad)
        r = catchup_begin(rp->scratch->log, rp->scratch->index, REPAIR_PATIENCE_MS, &rp->pos);
    return r;
}

/* When the commit was made that the root ends with; if that cannot be told any more, nobody is. */
static void tell_time_of_root(struct repair *rp)
{
    scope_free struct entry *entries = NULL;
    struct header h;

    rp->plan.seq = rp->plan.checkpoint;
    if (rp->plan.seq > 0 &&
        log_read(rp->scratch->log, rp->plan.seq, &h, &entries, REPAIR_PATIENCE_MS) == 0)
        rp->plan.wall_ms = h.wall_ms;
}

static int find_instant(struct repair *rp)
{
    uint64_t missing;
    int r = load_newest_good_root(rp);

    if (r < 0)
        return r;
    tell_time_of_root(rp);
    log_go_back(rp->scratch->log);
    r = log_replay(rp->scratch->log, &rp->pos, apply, rp, REPAIR_PATIENCE_MS, &missing);
    if (r == -ENOENT) { /* a root let it go: a damaged one that we know, or somebody works on it */
        uint64_t newest;
        r = checkpoint_newest(rp->scratch->log, &newest, REPAIR_PATIENCE_MS);
        r = r < 0 ? r : newest > rp->newest_root ? -EAGAIN : -EBADMSG;
    }
    if (r < 0 && (rp->apply_failed || !is_damage(r)))
        return r;
    rp->plan.log_broken = r < 0;
    rp->plan.roots_damaged = rp->plan.checkpoint < rp->newest_root;
    rp->plan.size_bytes = rp->pos.size_blocks * BLOCK_BYTES;
    return 0;
}

/* ------------------------------------------------------------------ what is behind it */

struct object {
    int error;
    struct header header;
    struct entry *entries;
};

static void *read_object(void *ctx, size_t i)
{
    struct repair *rp = ctx;
    struct object *o = calloc(1, sizeof *o);

    if (o)
        o->error = log_read(rp->scratch->log, rp->tail.seqs[i], &o->header, &o->entries,
                            REPAIR_PATIENCE_MS);
    return o;
}

static int use_object(void *ctx, size_t i, void *item)
{
    struct repair *rp = ctx;
    const struct object *o = item;

    bool bad = is_damage(o->error);
    bool ahead = !o->error && o->header.kind == HEADER_CLAIM && o->header.flags & HEADER_AHEAD;
    int r = 0;

    if (o->error && !bad)
        return o->error == -ENOENT ? -EAGAIN : o->error;
    if (bad || ahead)
        r = add_number(&rp->jumps, rp->tail.seqs[i]);
    rp->plan.damaged += bad;
    if (r < 0 || bad)
        return r;
    rp->acknowledged = MAX(rp->acknowledged, ahead ? o->header.first : o->header.next);
    rp->epoch = MAX(rp->epoch, o->header.epoch);
    if (o->header.kind == HEADER_SEGMENT) {
        rp->plan.segments_lost++;
        rp->plan.commits_lost += (o->header.flags & HEADER_LAST) != 0;
    }
    return 0;
}

static void drop_object(void *item)
{
    struct object *o = item;

    free(o->entries);
    free(o);
}

static int read_tail(struct repair *rp)
{
    static const struct pipeline_ops ops = {read_object, use_object, drop_object};
    char after[STORE_KEY_MAX];
    int r;

    rp->acknowledged = rp->pos.next;
    rp->epoch = rp->pos.epoch;
    log_key(rp->pos.next - 1, after);
    r = store_list(rp->store, "log/", after, add_seq, &rp->tail, REPAIR_PATIENCE_MS);
    if (r == 0)
        r = pipeline_run(rp->tail.n, &ops, rp);
    rp->epoch += rp->jumps.n;           /* each may have been, or be followed by, a newer claim */
    if (r == 0 && !rp->plan.log_broken) /* that is the log's end; behind it is what never was */
        rp->plan.segments_lost = rp->plan.commits_lost = 0;
    return r;
}

/* ------------------------------------------------------------------ which numbers to claim */

static uint64_t first_missing(const struct numbers *there, uint64_t from)
{
    for (size_t i = 0; i < there->n; i++)
        if (there->seqs[i] == from)
            from++;
    return from;
}

static int add_fence(const struct repair *rp, struct numbers *fences, uint64_t from)
{
    uint64_t at = first_missing(&rp->tail, from);

    if (at + LOG_WINDOW + 1 > SEQ_MAX)
        return msg_error(-EOVERFLOW, "%s: has objects of impossible numbers; cannot be repaired",
                         store_url(rp->store));
    for (size_t i = 0; i < fences->n; i++)
        if (fences->seqs[i] == at)
            return 0;
    return add_number(fences, at);
}

static int ascending(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* Every number that a writer who is still running may lack, and must find taken: the first one
 * missing behind what is known to have been acknowledged; and behind what a damaged object may have
 * led to if it was a claim, or a claim ahead will. The last one must also be beyond the damaged
 * roots, as the new root's number. */
static int choose_fences(const struct repair *rp, struct numbers *fences)
{
    int r = add_fence(rp, fences, rp->acknowledged);

    for (size_t i = 0; i < rp->jumps.n && r == 0; i++)
        if (rp->jumps.seqs[i] >= rp->acknowledged)
            r = add_fence(rp, fences, rp->jumps.seqs[i] + LOG_WINDOW + 1);
    if (r == 0)
        qsort(fences->seqs, fences->n, sizeof *fences->seqs, ascending);
    if (r == 0 && rp->newest_root >= fences->seqs[fences->n - 1])
        r = add_fence(rp, fences, rp->newest_root + 1);
    return r;
}

/* ------------------------------------------------------------------ doing it */

static int add_places(void *ctx, const struct places *p)
{
    return checkpoint_add(ctx, p->e, p->n);
}

static int store_root(struct repair *rp)
{
    struct index *ix = rp->scratch->index;
    struct checkpoint *out = NULL;
    struct index_view *view = NULL;
    struct part_list list = {0};
    struct log_position pos;
    uint64_t bytes;
    int r = index_view_begin(ix, &view, &pos);

    if (r < 0)
        return r;
    r = checkpoint_new(rp->scratch->log, &rp->pos, REPAIR_PATIENCE_MS, &out);
    if (r == 0)
        r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, add_places, out);
    if (r == 0)
        r = checkpoint_finish(out, &list, &bytes);
    free(list.parts);
    checkpoint_free(out);
    index_view_end(view);
    return r;
}

static int carry_out(struct repair *rp)
{
    char who[96], host[64] = "unknown";
    struct numbers fences = {0};
    uint64_t again = 0;
    int r = choose_fences(rp, &fences);

    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(who, sizeof who, "check --repair on host %s", host);
    rp->pos.epoch = rp->epoch;
    if (r == 0)
        r = log_fence(rp->scratch->log, &rp->pos, fences.seqs, fences.n, who, REPAIR_PATIENCE_MS);
    free(fences.seqs);
    if (r == 0)
        r = checkpoint_newest(rp->scratch->log, &again, REPAIR_PATIENCE_MS);
    if (r == 0 && again != rp->newest_root) /* what looked missing may have been deleted */
        r = -EAGAIN;
    return r == 0 ? store_root(rp) : r;
}

/* ------------------------------------------------------------------ all of it */

static int look(struct repair *rp)
{
    int r = scratch_new(rp->store, &rp->sb, &rp->scratch);

    if (r == 0)
        r = find_instant(rp);
    rp->plan.needed = rp->plan.log_broken || rp->plan.roots_damaged;
    if (r < 0 || !rp->plan.needed)
        return r;
    r = read_tail(rp);
    if (r == 0 && rp->plan.seq == 0 && rp->plan.log_broken)
        r = msg_error(-ENODATA,
                      "%s: cannot be repaired: there is no checkpoint, and no commit at the log's "
                      "beginning, that can be read",
                      store_url(rp->store));
    return r;
}

static int try_once(struct store *store, const struct superblock *sb, volume_repair_fn *agree,
                    void *ctx, struct volume_repair *plan)
{
    struct repair rp = {.store = store, .sb = *sb};
    bool asked = plan->needed;
    uint64_t agreed = plan->seq;
    int r = look(&rp);

    if (r == 0) {
        *plan = rp.plan;
        if (plan->needed && (!asked || plan->seq < agreed))
            r = agree(ctx, plan);
    }
    if (r == 0 && plan->needed)
        r = carry_out(&rp);
    scratch_free(rp.scratch);
    free(rp.tail.seqs);
    free(rp.jumps.seqs);
    return r;
}

int volume_repair(struct store *store, volume_repair_fn *agree, void *ctx,
                  struct volume_repair *ret_plan)
{
    struct volume_repair plan = {0};
    struct superblock sb;
    int r = superblock_load(store, &sb, REPAIR_PATIENCE_MS);

    if (r == -EBADMSG || r == -ENOENT)
        return msg_error(
            r,
            "%s: without its superblock a volume cannot be repaired: nothing else says "
            "whether it is a clone, and of what; put the object back from a copy",
            store_url(store));
    if (r == 0)
        r = -EAGAIN;
    for (int tries = 0; r == -EAGAIN && tries < REPAIR_TRIES; tries++)
        r = try_once(store, &sb, agree, ctx, &plan);
    if (r == -EAGAIN)
        r = msg_error(-EBUSY, "%s: another machine is writing to it all the time; unmount there",
                      store_url(store));
    if (r == 0)
        *ret_plan = plan;
    return r;
}
