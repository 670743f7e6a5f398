/* Reading the log: headers and tables, many at once, in order. The contract is in log.h. */
#include "checkpoint.h"

#include "bytes.h"
#include "msg.h"
#include "pipeline.h"
#include "scope.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------ one object */

/* What only the segment around it tells of an entry. */
static bool fits_in(const struct superblock *sb, const struct header *h, struct entry *e)
{
    bool ends = (uint64_t)e->offset + e->stored_bytes <= h->object_bytes;

    if (e->block + e->nblocks > h->size_blocks)
        return false;
    if (e->kind == ENTRY_MOVE) {
        e->seq = h->seq;
        return ends && e->old_base <= sb->nbases && (e->old_base || e->old_seq < h->seq);
    }
    return e->kind == ENTRY_ZERO ||
           (e->base <= sb->nbases && (e->base || e->seq != h->seq || ends));
}

static int check_entries(const struct superblock *sb, const struct header *h, const uint8_t *table,
                         struct entry *entries, const char **ret_why)
{
    *ret_why = "damaged: an entry makes no sense";
    for (uint32_t i = 0; i < h->nentries; i++) {
        struct entry *e = &entries[i];
        if (entry_decode(table + (size_t)i * ENTRY_BYTES, e) < 0 || !fits_in(sb, h, e))
            return -EBADMSG;
    }
    return 0;
}

static bool sizes_add_up(const struct header *h)
{
    if (h->kind == HEADER_CLAIM)
        return h->nentries == 0 &&
               (!(h->flags & HEADER_ROLLBACK) || h->body_bytes >= LOG_TARGET_BYTES) &&
               h->object_bytes == HEADER_BYTES + h->body_bytes;
    return h->nentries <= LOG_ENTRIES_MAX && h->body_bytes == h->nentries * ENTRY_BYTES &&
           h->first <= h->seq;
}

int log_decode(const struct superblock *sb, uint64_t seq, const void *head, size_t len,
               struct header *ret_header, struct entry **ret_entries, const char **ret_why)
{
    scope_free struct entry *entries = NULL;
    struct header h;
    int r = header_decode(head, len, sb->uuid, 0, seq, &h, ret_why);

    if (r == 0 && !sizes_add_up(&h)) {
        *ret_why = "damaged: sizes do not add up";
        return -EBADMSG;
    }
    if (r == 0 && h.flags & HEADER_ROLLBACK && h.kind == HEADER_CLAIM) {
        h.rollback_root = get_le64((const uint8_t *)head + HEADER_BYTES);
        h.rollback_seq = get_le64((const uint8_t *)head + HEADER_BYTES + 8);
        if (h.rollback_root > h.rollback_seq || h.rollback_seq >= seq) {
            *ret_why = "damaged: a rollback to what was not yet";
            return -EBADMSG;
        }
    }
    if (r == 0 && h.kind == HEADER_SEGMENT) {
        entries = calloc(MAX(h.nentries, 1u), sizeof *entries);
        r = entries ? check_entries(sb, &h, (const uint8_t *)head + HEADER_BYTES, entries, ret_why)
                    : -ENOMEM;
    }
    if (r < 0)
        return r;
    *ret_header = h;
    *ret_entries = take(entries);
    return 0;
}

int log_read(struct log *log, uint64_t seq, struct header *ret_header, struct entry **ret_entries,
             int64_t patience_ms)
{
    scope_free uint8_t *head = malloc(LOG_HEAD_BYTES);
    char key[STORE_KEY_MAX];
    const char *why;
    uint64_t size;
    size_t len;
    int r;

    if (!head)
        return -ENOMEM;
    log_key(seq, key);
    r = store_get_head(log_store(log), key, head, LOG_HEAD_BYTES, &len, &size, patience_ms);
    if (r < 0)
        return r;
    r = log_decode(log_superblock(log), seq, head, len, ret_header, ret_entries, &why);
    if (r == 0 && size > 0 && size != ret_header->object_bytes) {
        free(take(*ret_entries));
        why = "damaged: longer or shorter than it says of itself";
        r = -EBADMSG;
    }
    if (r == -EBADMSG || r == -EPROTONOSUPPORT)
        msg_error(r, "%s: %s: %s; see `s3vol check`", store_url(log_store(log)), key, why);
    return r;
}

/* ------------------------------------------------------------------ commits, in order */

struct replay {
    struct log *log;
    int64_t patience_ms;
    const uint64_t *seqs; /* what is there, ascending */
    struct log_position *pos;
    bool stopped;            /* by `apply` */
    _Atomic uint64_t expect; /* the number that has to come now; makers look at it, too */
    struct entry *entries;   /* of the commit that is being read */
    size_t nentries, room;
    log_apply_fn *apply;
    void *ctx;
    bool bounded;      /* reads what a pin holds: nothing of that was ever deleted */
    bool knows_newest; /* the newest checkpoint, as of after the listing */
    uint64_t newest;
};

/* Whoever claimed a number that was not missing, but deleted, gave that up again: it has come to
 * nothing if there is a checkpoint at or beyond it that does not come after it. -ENOENT: start over
 * from that. */
static int check_claim(struct replay *rp, const struct header *claim)
{
    struct part_list list = {0};
    struct header root;
    int r = 0;

    if (rp->bounded || log_goes_back(rp->log))
        return 0;
    if (!rp->knows_newest)
        r = checkpoint_newest(rp->log, &rp->newest, rp->patience_ms);
    rp->knows_newest = r == 0;
    if (r < 0 || rp->newest < claim->seq)
        return r;
    if (rp->newest > claim->seq)
        return -ENOENT;
    r = checkpoint_parts(rp->log, rp->newest, rp->patience_ms, &root, &list);
    free(list.parts);
    return r < 0 ? r : memcmp(root.nonce, claim->nonce, UUID_BYTES) == 0 ? 0 : -ENOENT;
}

static int collect(struct replay *rp, const struct entry *entries, size_t n)
{
    if (rp->nentries + n > rp->room) {
        size_t room = MAX(2 * rp->room, rp->nentries + n);
        struct entry *more = realloc(rp->entries, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        rp->entries = more;
        rp->room = room;
    }
    if (n > 0)
        memcpy(rp->entries + rp->nentries, entries, n * sizeof *entries);
    rp->nentries += n;
    return 0;
}

/* Takes in the object at rp->expect. */
static int take_in(struct replay *rp, const struct header *h, const struct entry *entries)
{
    struct log_position *pos = rp->pos;
    int r = 0;

    if (h->kind == HEADER_CLAIM) {
        if ((!(h->flags & HEADER_AHEAD) && h->first != pos->seq) || h->epoch <= pos->epoch)
            return msg_error(-EBADMSG,
                             "%s: log/%016" PRIx64
                             ": this claim does not follow the log before it; "
                             "see `s3vol check`",
                             store_url(log_store(rp->log)), h->seq);
        r = check_claim(rp, h);
        if (r < 0)
            return r;
        rp->nentries = 0; /* an unfinished commit: never was */
        pos->seq = h->seq;
        pos->next = h->next;
        pos->epoch = h->epoch;
        if (!(h->flags & HEADER_AHEAD)) { /* else nobody attached, so far */
            pos->claim = h->seq;
            memcpy(pos->nonce, h->nonce, UUID_BYTES);
        }
        if (h->flags & HEADER_ROLLBACK)
            pos->size_blocks = h->size_blocks;
        r = rp->apply(rp->ctx, h, NULL, 0, pos);
        rp->stopped = r > 0;
    } else {
        r = collect(rp, entries, h->nentries);
        if (r == 0 && h->flags & HEADER_LAST) {
            pos->seq = h->seq;
            pos->next = h->seq + 1;
            pos->size_blocks = h->size_blocks;
            r = rp->apply(rp->ctx, h, rp->entries, rp->nentries, pos);
            rp->stopped = r > 0;
            rp->nentries = 0;
        }
    }
    rp->expect = h->kind == HEADER_CLAIM ? h->next : h->seq + 1;
    return r;
}

/* ------------------------------------------------------------------ many at once */

struct item {
    int error;
    struct header header;
    struct entry *entries;
};

static void *item_make(void *ctx, size_t i)
{
    struct replay *rp = ctx;
    struct item *item = calloc(1, sizeof *item);

    /* what a claim jumped over is never looked at */
    if (item && rp->seqs[i] >= rp->expect)
        item->error =
            log_read(rp->log, rp->seqs[i], &item->header, &item->entries, rp->patience_ms);
    return item;
}

enum { THE_END = 1 };

/* What is missing was deleted if there is a checkpoint at or beyond it: it was stored after the one
 * that we began with. -ENOENT then: start over. */
static int was_deleted(struct log *log, uint64_t missing, int64_t patience_ms)
{
    uint64_t newest;
    int r = checkpoint_newest(log, &newest, patience_ms);

    return r < 0 ? r : newest >= missing ? -ENOENT : 0;
}

/* The number expected cannot be missing. But a listing is not of one instant: it may have been put
 * behind the listing's back by a writer who went on meanwhile. Then the end is here, for now. */
static int look_again(struct replay *rp)
{
    scope_free struct entry *entries = NULL;
    struct header there;
    int r = log_read(rp->log, rp->expect, &there, &entries, rp->patience_ms);

    if (r == -ENOENT && (r = was_deleted(rp->log, rp->expect, rp->patience_ms)) == 0)
        return msg_error(-EBADMSG,
                         "%s: log/%016" PRIx64 ": is missing, though the log went on after it; see "
                         "`s3vol check`",
                         store_url(log_store(rp->log)), (uint64_t)rp->expect);
    return r < 0 ? r : THE_END;
}

static int item_use(void *ctx, size_t i, void *it)
{
    struct replay *rp = ctx;
    struct item *item = it;

    if (rp->seqs[i] < rp->expect)
        return 0;
    if (rp->seqs[i] == rp->expect)
        return item->error ? item->error : take_in(rp, &item->header, item->entries);
    /* A gap ends the log: behind it lies what an interrupted writer had in flight. But that is
     * within the window, and what was acknowledged, or claimed, before it cannot be missing. */
    bool in_flight = rp->seqs[i] <= rp->expect + LOG_WINDOW &&
                     (item->error || header_knows_of(&item->header) <= rp->expect);
    return in_flight ? 0 : look_again(rp);
}

static void item_drop(void *it)
{
    struct item *item = it;

    free(item->entries);
    free(item);
}

static const struct pipeline_ops items = {item_make, item_use, item_drop};

/* ------------------------------------------------------------------ what there is */

struct seqs {
    uint64_t *seqs;
    size_t n, room;
    uint64_t last; /* the greatest that is wanted */
    bool enough;   /* there are greater ones */
};

enum { LISTED_ENOUGH = -ECANCELED }; /* a list function's own */

static int add_seq(void *ctx, const char *key, uint64_t size_bytes)
{
    struct seqs *s = ctx;
    uint64_t seq;

    (void)size_bytes;
    if (!log_parse_key(key, &seq))
        return 0; /* not ours: somebody's file lying about */
    if (seq > s->last)
        return s->enough = true, LISTED_ENOUGH;
    if (s->n == s->room) {
        size_t room = MAX(2 * s->room, (size_t)256);
        uint64_t *more = realloc(s->seqs, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        s->seqs = more;
        s->room = room;
    }
    s->seqs[s->n++] = seq;
    return 0;
}

static int replay(struct log *log, struct log_position *pos, uint64_t last, log_apply_fn *apply,
                  void *ctx, int64_t patience_ms, uint64_t *ret_missing, bool *ret_stopped)
{
    struct replay rp = {.log = log,
                        .patience_ms = patience_ms,
                        .pos = pos,
                        .expect = pos->next,
                        .apply = apply,
                        .ctx = ctx,
                        .bounded = last != SEQ_MAX};
    struct seqs s = {.last = last};
    char after[STORE_KEY_MAX];
    int r;

    log_key(pos->next - 1, after);
    r = store_list(log_store(log), "log/", after, add_seq, &s, patience_ms);
    if (r == LISTED_ENOUGH && s.enough)
        r = 0;
    rp.seqs = s.seqs;
    if (r == 0)
        r = pipeline_run(s.n, &items, &rp);
    r = MIN(r, 0); /* THE_END, or `apply` had enough */
    if (r == 0)
        *ret_missing = rp.expect;
    *ret_stopped = rp.stopped;
    free(s.seqs);
    free(rp.entries);
    return r;
}

int log_replay(struct log *log, struct log_position *pos, log_apply_fn *apply, void *ctx,
               int64_t patience_ms, uint64_t *ret_missing)
{
    bool stopped;

    return replay(log, pos, SEQ_MAX, apply, ctx, patience_ms, ret_missing, &stopped);
}

int log_replay_to(struct log *log, struct log_position *pos, uint64_t last, log_apply_fn *apply,
                  void *ctx, int64_t patience_ms)
{
    uint64_t missing = pos->next;
    bool stopped = false;
    int r = 0;

    if (pos->seq < last)
        r = replay(log, pos, last, apply, ctx, patience_ms, &missing, &stopped);
    if (r < 0 || stopped || pos->seq == last)
        return r;
    if (missing <= last)
        r = was_deleted(log, missing, patience_ms);
    if (r < 0 && r != -ENOENT)
        return r;
    return msg_error(r < 0 ? r : -EBADMSG,
                     "%s: log/%016" PRIx64 ": is missing, or no commit ends at %016" PRIx64
                     " that a snapshot or clone names; see `s3vol check`",
                     store_url(log_store(log)), missing, last);
}

int log_follow(struct log *log, struct log_position *pos, log_apply_fn *apply, void *ctx,
               int64_t patience_ms, uint64_t *ret_missing)
{
    struct replay rp = {.log = log,
                        .patience_ms = patience_ms,
                        .pos = pos,
                        .expect = pos->next,
                        .apply = apply,
                        .ctx = ctx};
    bool end = false;
    int r = 0;

    while (r == 0 && !end) {
        scope_free struct entry *entries = NULL;
        struct header h;
        r = log_read(log, rp.expect, &h, &entries, patience_ms);
        end = r == -ENOENT;
        rp.knows_newest = false;
        r = end ? 0 : r < 0 ? r : take_in(&rp, &h, entries);
    }
    *ret_missing = rp.expect;
    free(rp.entries);
    return MIN(r, 0);
}
