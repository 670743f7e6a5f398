#include "instant.h"

#include "../store/bytes.h"
#include "../store/checkpoint.h"
#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

enum { BACK_MAX = 32, NOT_TOLD = 1 };

struct tail {
    struct log *log;
    int64_t patience_ms;
    struct log_position at; /* the checkpoint's */
    uint64_t *seqs;         /* what is in the log after it, ascending */
    size_t n, room;
};

static int add_seq(void *ctx, const char *key, uint64_t size_bytes)
{
    struct tail *t = ctx;
    uint64_t seq;

    (void)size_bytes;
    if (!log_parse_key(key, &seq) || seq < t->at.next)
        return 0;
    if (t->n == t->room) {
        size_t room = MAX(2 * t->room, (size_t)256);
        uint64_t *more = realloc(t->seqs, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        t->seqs = more;
        t->room = room;
    }
    t->seqs[t->n++] = seq;
    return 0;
}

static int read_head(struct tail *t, uint64_t seq, struct header *ret)
{
    scope_free struct entry *entries = NULL;

    return log_read(t->log, seq, ret, &entries, t->patience_ms);
}

/* A segment of the same attachment as `h`. */
static bool is_of(const struct header *seg, const struct header *h)
{
    return seg->kind == HEADER_SEGMENT && seg->claim == h->claim &&
           memcmp(seg->nonce, h->nonce, UUID_BYTES) == 0;
}

static struct log_position end_of(const struct header *h)
{
    struct log_position pos = {.seq = h->seq,
                               .next = h->kind == HEADER_CLAIM ? h->next : h->seq + 1,
                               .size_blocks = h->size_blocks,
                               .epoch = h->epoch,
                               .claim = h->claim};

    memcpy(pos.nonce, h->nonce, UUID_BYTES);
    return pos;
}

/* Tells by the last object that is there. Its header says up to where its writer had everything
 * acknowledged, so that no claim can be in there; between that and itself every number must be one
 * of the same attachment. NOT_TOLD: there are gaps, or another claim, or too many. */
static int ask_the_last(struct tail *t, struct log_position *ret)
{
    struct header h, other;
    uint64_t last = t->seqs[t->n - 1];
    int r = read_head(t, last, &h);

    if (r == 0 && h.kind == HEADER_SEGMENT) {
        uint64_t from = MAX(h.next, t->at.next);
        if (from < last && (last - from > BACK_MAX || t->n <= last - from ||
                            t->seqs[t->n - 1 - (last - from)] != from))
            return NOT_TOLD;
        for (uint64_t seq = last; seq > from && r == 0; seq--) {
            r = read_head(t, seq - 1, &other);
            if (r == 0 && !is_of(&other, &h))
                return NOT_TOLD;
        }
    }
    if (r == -ENOENT || (r == 0 && h.flags & HEADER_AHEAD && h.kind == HEADER_CLAIM))
        return NOT_TOLD;
    if (r < 0)
        return r;
    if (h.kind == HEADER_SEGMENT && !(h.flags & HEADER_LAST)) { /* the commit before it, then */
        if (h.first <= t->at.next) {
            *ret = t->at;
            return 0;
        }
        struct header unfinished = h;
        r = read_head(t, h.first - 1, &h);
        if (r == -ENOENT || (r == 0 && (!is_of(&h, &unfinished) || !(h.flags & HEADER_LAST))))
            return NOT_TOLD;
    }
    if (r == 0)
        *ret = end_of(&h);
    return r;
}

static int nothing(void *ctx, const struct header *last, const struct entry *entries,
                   size_t nentries, const struct log_position *pos)
{
    (void)ctx, (void)last, (void)entries, (void)nentries, (void)pos;
    return 0;
}

static int begin_at(struct tail *t, uint64_t root)
{
    struct part_list parts = {0};
    struct header h;
    int r = 0;

    t->at = (struct log_position){.next = 1,
                                  .size_blocks = log_superblock(t->log)->size_bytes / BLOCK_BYTES};
    if (root)
        r = checkpoint_parts(t->log, root, t->patience_ms, &h, &parts);
    if (root && r == 0) {
        t->at = end_of(&h);
        t->at.next = h.next;
    }
    free(parts.parts);
    return r;
}

int instant_newest(struct log *log, int64_t patience_ms, struct instant *ret)
{
    struct tail t = {.log = log, .patience_ms = patience_ms};
    struct instant in = {0};
    char after[STORE_KEY_MAX];
    uint64_t missing;
    int r = checkpoint_newest(log, &in.root, patience_ms);

    if (r == 0)
        r = begin_at(&t, in.root);
    if (r < 0)
        return r;
    in.pos = t.at;
    log_key(in.root, after);
    r = store_list(log_store(log), "log/", after, add_seq, &t, patience_ms);
    if (r == 0 && t.n > 0)
        r = ask_the_last(&t, &in.pos);
    if (r == NOT_TOLD) {
        in.pos = t.at;
        r = log_replay(log, &in.pos, nothing, NULL, patience_ms, &missing);
    }
    free(t.seqs);
    if (r == 0)
        *ret = in;
    return r;
}

/* One that is being made: nobody's yet. Its name is never used again, so no request of ours that
 * comes late can hurt. */
static int store_pending(struct store *store, const struct superblock *sb, const struct pin *pin,
                         struct pin *ret_pending, int64_t patience_ms)
{
    struct pin pending = *pin;
    uint8_t nonce[8];
    int r = random_bytes(nonce, sizeof nonce);

    pending.clone_url[0] = pending.of[0] = 0;
    if (r == 0)
        r = format(pending.name, sizeof pending.name, PIN_PENDING "%016llx",
                   (unsigned long long)get_le64(nonce));
    if (r == 0)
        r = pin_store(store, sb, &pending, patience_ms);
    if (r == 0)
        *ret_pending = pending;
    return r;
}

/* -EAGAIN: there is a newer checkpoint, which may have been stored before we said what we need. */
static int expect_newest(struct log *log, const struct pin *pin, int64_t patience_ms)
{
    uint64_t newest;
    int r = checkpoint_newest(log, &newest, patience_ms);

    return r == 0 && newest > pin->root ? -EAGAIN : r;
}

/* The pin of that instant, if nothing that it needs can be deleted any more; -EAGAIN as above. */
static int pin_instant(struct log *log, struct pin *pin, int64_t patience_ms)
{
    struct store *store = log_store(log);
    const struct superblock *sb = log_superblock(log);
    struct pin pending, again;
    int r = store_pending(store, sb, pin, &pending, patience_ms);

    if (r < 0)
        return r;
    r = expect_newest(log, pin, patience_ms);
    if (r == 0) { /* who stores one from now on, finds the pending one, or this */
        r = pin_store(store, sb, pin, patience_ms);
        if (r < 0 && r != -EEXIST)
            return r; /* it may come yet: then it must be whole */
    }
    if (r == 0) /* we may have slept for so long that somebody cleared that one away */
        r = pin_load(store, sb, pending.name, &again, patience_ms);
    if (r == -ENOENT) {
        (void)pin_delete(store, pin->name, patience_ms);
        r = msg_error(-EBUSY, "%s@%s: %s was deleted while it was being made; try again",
                      store_url(store), pin->name, pending.name);
    }
    (void)pin_delete(store, pending.name, patience_ms); /* was reported; it takes some space */
    return r;
}

/* -EAGAIN: the checkpoint was replaced by a newer one. */
static int find_instant(struct log *log, struct pin *pin, int64_t patience_ms)
{
    struct instant in;
    int r = instant_newest(log, patience_ms, &in);

    if (r < 0)
        return r == -ENOENT ? -EAGAIN : r;
    memcpy(pin->uuid, log_superblock(log)->uuid, UUID_BYTES);
    pin->root = in.root;
    pin->seq = in.pos.seq;
    pin->next = in.pos.next;
    pin->size_bytes = in.pos.size_blocks * BLOCK_BYTES;
    pin->epoch = in.pos.epoch;
    return 0;
}

int instant_pin(struct log *log, struct pin *pin, int64_t patience_ms)
{
    int r = -EAGAIN;

    for (int tries = 0; r == -EAGAIN && tries < INSTANT_TRIES; tries++) {
        r = find_instant(log, pin, patience_ms);
        if (r == 0)
            r = pin_instant(log, pin, patience_ms);
    }
    return r == -EAGAIN ? instant_no_end(log) : r;
}

int instant_pin_tentative(struct log *log, struct pin *pin, int64_t patience_ms)
{
    struct store *store = log_store(log);
    int r = find_instant(log, pin, patience_ms);

    if (r < 0)
        return r;
    r = pin_store(store, log_superblock(log), pin, patience_ms);
    if (r == 0)
        r = expect_newest(log, pin, patience_ms);
    if (r == -EAGAIN)
        (void)pin_delete(store, pin->name, patience_ms); /* was reported; it takes some space */
    return r;
}

int instant_no_end(struct log *log)
{
    return msg_error(-EBUSY, "%s: its checkpoints change all the time; try again",
                     store_url(log_store(log)));
}
