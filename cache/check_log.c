/* Checking the objects of the log: each is read whole, on many threads, and judged in order. */
#include "check_internal.h"

#include "../store/frame.h"
#include "../store/pipeline.h"
#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum { OBJECT_BYTES_MAX = LOG_HEAD_BYTES + LOG_SEGMENT_RAW_BYTES };

static const char WRONG_SIZE[] = "longer or shorter than it says of itself";

/* One object. */
struct result {
    int error; /* it could not be read, or its head is damaged */
    const char *why;
    bool stranger, wrong_size; /* of another volume; … though its head is good */
    struct header header;
    struct entry *entries; /* of a damaged head: those that can be believed all the same */
    uint32_t nentries;
    bool *damaged; /* by entry: its frame */
};

/* Where we are in the chain of numbers. */
struct walk {
    struct check *c;
    uint64_t expect;        /* the next number */
    uint64_t gap;           /* the first number that is missing; 0: none so far */
    bool blind;             /* the one before could not be read: it may have led anywhere */
    struct header claim;    /* the newest; its kind is 0 if it is not known */
    uint64_t missing_claim; /* the last one that was told of */
    uint64_t given_up_to;   /* what is left over up to here was counted */
};

/* ------------------------------------------------------------------ reading one */

static bool frame_is_good(struct framer *framer, const struct entry *e, const uint8_t *data,
                          size_t len, void *raw)
{
    const void *blocks;

    return (uint64_t)e->offset + e->stored_bytes <= len &&
           frame_unpack(framer, e, data + e->offset, raw, &blocks) == 0;
}

static void check_frames(struct result *res, struct framer *framer, const uint8_t *data, size_t len,
                         void *raw)
{
    for (uint32_t i = 0; i < res->nentries; i++) {
        const struct entry *e = &res->entries[i];
        res->damaged[i] = e->kind != ENTRY_ZERO && e->base == 0 && e->seq == res->header.seq &&
                          !frame_is_good(framer, e, data, len, raw);
    }
}

/* The head cannot be believed; but an entry can whose frame is where it says, with the checksum
 * that it says. */
static void salvage(struct result *res, struct framer *framer, uint64_t seq, const uint8_t *data,
                    size_t len, void *raw)
{
    size_t end = MIN(len, (size_t)LOG_HEAD_BYTES);

    for (size_t at = HEADER_BYTES; at + ENTRY_BYTES <= end; at += ENTRY_BYTES) {
        struct entry e;
        if (res->nentries < LOG_ENTRIES_MAX && entry_decode(data + at, &e) == 0 &&
            e.kind == ENTRY_DATA && e.seq == seq && frame_is_good(framer, &e, data, len, raw))
            res->entries[res->nentries++] = e;
    }
}

static int look_into(const struct superblock *sb, struct result *res, uint64_t seq,
                     const uint8_t *data, size_t len)
{
    scope_free uint8_t *raw = malloc(CHUNK_BYTES);
    struct framer *framer;

    if (!raw || framer_new(&framer) < 0)
        return -ENOMEM;
    int r = log_decode(sb, seq, data, len, &res->header, &res->entries, &res->why);
    if (r == 0) {
        res->nentries = res->header.nentries;
        res->damaged = calloc(res->nentries + 1, sizeof *res->damaged);
        if (res->damaged)
            check_frames(res, framer, data, len, raw);
    } else if (check_is_damage(r)) {
        struct header h;
        const char *why;
        res->stranger = len >= HEADER_BYTES &&
                        header_decode(data, len, data + HEADER_AT_UUID, 0, seq, &h, &why) == 0;
        res->entries = calloc(LOG_ENTRIES_MAX, sizeof *res->entries);
        if (res->entries && !res->stranger)
            salvage(res, framer, seq, data, len, raw);
    }
    framer_free(framer);
    return !res->entries && res->header.kind != HEADER_CLAIM ? -ENOMEM : r;
}

static void *read_whole(struct store *store, const struct superblock *sb, uint64_t seq)
{
    struct result *res = calloc(1, sizeof *res);
    scope_free uint8_t *data = malloc(OBJECT_BYTES_MAX);
    char key[STORE_KEY_MAX];
    uint64_t size;
    size_t len;

    if (!res || !data) {
        free(res);
        return NULL;
    }
    log_key(seq, key);
    res->why = "cannot be read";
    res->error = store_get_head(store, key, data, OBJECT_BYTES_MAX, &len, &size, CHECK_PATIENCE_MS);
    if (res->error == 0)
        res->error = look_into(sb, res, seq, data, len);
    res->wrong_size = res->error == 0 && (len < res->header.object_bytes ||
                                          (size > 0 && size != res->header.object_bytes));
    return res;
}

static void *read_object(void *ctx, size_t i)
{
    struct check *c = ((struct walk *)ctx)->c;

    return read_whole(c->store, &c->sb, c->seqs[i]);
}

static void drop_object(void *item)
{
    struct result *res = item;

    free(res->entries);
    free(res->damaged);
    free(res);
}

/* ------------------------------------------------------------------ what is said of one */

/* The blocks of this entry that the map still finds in its frame; all of them if that is not
 * known. */
static uint64_t blocks_in_use(struct check *c, const struct entry *e)
{
    uint64_t mask = mask_range((unsigned)(e->block % CHUNK_BLOCKS), (unsigned)e->nblocks), used = 0;
    struct places p;

    if (!c->whole || index_load(c->scratch->index, e->block / CHUNK_BLOCKS, &p) < 0)
        return mask;
    for (unsigned i = 0; i < p.n; i++)
        if (p.e[i].base == e->base && p.e[i].seq == e->seq && p.e[i].offset == e->offset)
            used |= mask_range((unsigned)(p.e[i].block % CHUNK_BLOCKS), (unsigned)p.e[i].nblocks);
    return mask & used;
}

static int tell_of_frame(struct check *c, const struct entry *e)
{
    uint64_t used = blocks_in_use(c, e), first_block = ROUND_DOWN(e->block, (uint64_t)CHUNK_BLOCKS);
    char why[64];

    (void)snprintf(why, sizeof why, "damaged at byte %" PRIu32, e->offset);
    if (c->npins > 0) { /* a snapshot may need it */
        int r = check_note_frame(c, 0, e, used != 0);
        if (r < 0)
            return r;
    } else if (!used) {
        check_wrong_blocks(c, 0, e->seq, why, e->block, e->block + e->nblocks,
                           " (nothing needs them: no loss)");
    }
    while (used) {
        unsigned n, first = mask_run(used, &n);
        check_wrong_blocks(c, 0, e->seq, why, first_block + first, first_block + first + n, "");
        used &= ~mask_range(first, n);
    }
    return 0;
}

/* What the map is made of has places for it; of the rest only the object itself can tell. */
static int tell_of_head(struct check *c, uint64_t seq, const struct result *res)
{
    struct bad_object *bad = check_note_bad(c, 0, seq, res->why);

    if (!bad)
        return -ENOMEM;
    for (uint32_t i = 0; i < res->nentries && seq > c->map.seq; i++) {
        const struct entry *e = &res->entries[i];
        uint64_t block = e->block, end = block + e->nblocks;
        for (; i + 1 < res->nentries && res->entries[i + 1].block == end; i++)
            end += res->entries[i + 1].nblocks;
        check_wrong_blocks(c, 0, seq, res->why, block, end, "");
        bad->told = true;
    }
    c->strangers += res->stranger;
    return 0;
}

static int tell_of_body(struct check *c, const struct result *res)
{
    int r = 0;

    if (res->wrong_size)
        check_wrong(c, "log/%016" PRIx64 ": %s", res->header.seq, WRONG_SIZE);
    for (uint32_t i = 0; i < res->nentries && res->damaged && r == 0; i++) {
        c->frames += res->entries[i].kind != ENTRY_ZERO;
        if (res->damaged[i])
            r = tell_of_frame(c, &res->entries[i]);
    }
    return r;
}

/* ------------------------------------------------------------------ the chain */

static void missing(struct walk *w, uint64_t seq, const char *what)
{
    check_wrong(w->c, "log/%016" PRIx64 ": is missing%s", seq, what);
}

/* Claims are for ever: else their numbers would be free for the writers that they fence. */
static bool check_claim(struct walk *w, uint64_t claim)
{
    if (check_is_there(w->c, claim))
        return true;
    if (w->missing_claim != claim)
        missing(w, claim, ", the claim of the segments after it");
    w->missing_claim = claim;
    return false;
}

static void check_attachment(struct walk *w, const struct header *h)
{
    if (h->kind == HEADER_CLAIM)
        w->claim = w->gap || h->flags & HEADER_AHEAD ? w->claim : *h;
    else if (check_claim(w, h->claim) && w->claim.kind && !w->gap &&
             h->seq >= w->c->needed_from && /* before it claims may lack what followed them */
             (w->claim.epoch != h->epoch || w->claim.seq != h->claim ||
              memcmp(w->claim.nonce, h->nonce, UUID_BYTES) != 0))
        check_wrong(w->c, "log/%016" PRIx64 ": of another attachment than the claim before it",
                    h->seq);
}

/* Behind a gap lies what an interrupted writer had in flight; unless it tells that what is missing
 * was there. */
static void check_gap(struct walk *w, const struct header *h)
{
    if (h->kind == HEADER_SEGMENT && check_find_bad(w->c, 0, h->claim))
        w->gap = 0; /* a claim led here that cannot be read */
    if (!w->gap)
        return;
    if (header_knows_of(h) > w->gap || h->seq > w->gap + LOG_WINDOW) {
        if (w->missing_claim != w->gap)
            missing(w, w->gap, ", though the log went on after it");
        w->missing_claim = w->gap;
        w->gap = 0;
    } else {
        w->c->left_over++;
    }
}

/* What is between the last whole commit and the claim behind it never was, once a checkpoint says
 * that this claim was the log's: a commit that was not finished, or what a repair gave up. */
static void give_up(struct walk *w, size_t i, const struct header *claim)
{
    struct check *c = w->c;

    if (claim->seq >= c->needed_from ||
        claim->flags & HEADER_AHEAD) /* that does not know `first` */
        return;
    check_drop_held(c, claim->first);
    for (size_t n = 0; n < c->nbad; n++)
        if (c->bad[n].seq > claim->first && c->bad[n].seq < claim->seq)
            c->bad[n].told = true;
    for (size_t n = 0; n < c->nframes; n++)
        if (c->frames_bad[n].seq > claim->first && c->frames_bad[n].seq < claim->seq)
            c->frames_bad[n].told = true;
    for (uint64_t from = MAX(claim->first, w->given_up_to); i > 0 && c->seqs[i - 1] > from; i--)
        c->left_over++;
    w->given_up_to = claim->seq;
}

/* A claim jumped over it, or the newest checkpoint does: nobody will ever read it. But a claim that
 * was given up, because what looked missing had been reclaimed, jumps over nothing. */
static bool is_jumped_over(const struct walk *w, uint64_t seq)
{
    const struct check *c = w->c;
    bool jumped = seq < w->expect || (c->root && seq > c->root && seq < c->needed_from);
    bool needed = false;

    if (jumped && index_knows_segment(c->scratch->index, seq, &needed) < 0)
        return false;
    return jumped && !needed && !check_is_needed(c, seq);
}

/* A claim where the log went on without one, or that would have jumped over the newest one's
 * beginning: of who took a number that looked missing, but was deleted, and gave that up. */
static bool is_void(const struct check *c, const struct header *h)
{
    return h->kind == HEADER_CLAIM && c->root &&
           (h->seq < c->claim ? h->next > c->claim : h->seq > c->claim && h->seq <= c->root);
}

static int use_object(void *ctx, size_t i, void *item)
{
    struct walk *w = ctx;
    struct check *c = w->c;
    struct result *res = item;
    uint64_t seq = c->seqs[i], needed = MAX(w->expect, c->needed_from);

    c->objects++;
    if (is_jumped_over(w, seq)) {
        c->left_over++;
        w->given_up_to = seq;
        return 0;
    }
    c->held_at = seq;
    if (seq > needed && !w->gap && !w->blind)
        w->gap = needed;
    w->expect = MAX(w->expect, seq + 1);
    w->blind = res->error != 0;
    if (res->error == -ENOENT)
        return 0; /* deleted meanwhile */
    if (res->error) {
        w->claim.kind = 0;
        return check_is_damage(res->error) ? tell_of_head(c, seq, res) : res->error;
    }
    if (is_void(c, &res->header)) {
        c->left_over++;
        return 0;
    }
    check_gap(w, &res->header);
    check_attachment(w, &res->header);
    if (res->header.kind == HEADER_CLAIM && !w->gap) {
        give_up(w, i, &res->header);
        w->expect = res->header.next;
    }
    return tell_of_body(c, res);
}

int check_log(struct check *c)
{
    static const struct pipeline_ops ops = {read_object, use_object, drop_object};
    struct walk w = {.c = c, .expect = 1};

    int r = pipeline_run(c->nseqs, &ops, &w);
    c->held_at = 0;
    check_print_held(c);
    if (r == 0 && c->claim)
        check_claim(&w, c->claim);
    return r;
}

/* ------------------------------------------------------------------ a base's log */

struct base_walk {
    struct check *c;
    unsigned base;
    struct store *store;
    struct superblock sb; /* of the base, as far as that matters */
};

static void *read_base_object(void *ctx, size_t i)
{
    struct base_walk *w = ctx;

    return read_whole(w->store, &w->sb, w->c->needed[w->base].items[i].seq);
}

/* Which of its frames and blocks are needed, the maps tell. */
static int use_base_object(void *ctx, size_t i, void *item)
{
    struct base_walk *w = ctx;
    struct result *res = item;
    uint64_t seq = w->c->needed[w->base].items[i].seq;
    int r = 0;

    w->c->objects++;
    if (res->error && !check_is_damage(res->error) && res->error != -ENOENT)
        return res->error;
    if (res->error)
        return check_note_bad(w->c, w->base, seq, res->error == -ENOENT ? "is missing" : res->why)
                   ? 0
                   : -ENOMEM;
    for (uint32_t n = 0; n < res->nentries && res->damaged && r == 0; n++) {
        w->c->frames += res->entries[n].kind != ENTRY_ZERO;
        if (res->damaged[n])
            r = check_note_frame(w->c, w->base, &res->entries[n], true);
    }
    return r;
}

int check_base_log(struct check *c, unsigned base, struct store *store)
{
    static const struct pipeline_ops ops = {read_base_object, use_base_object, drop_object};
    struct base_walk w = {.c = c, .base = base, .store = store, .sb.nbases = BASES_MAX};

    memcpy(w.sb.uuid, c->sb.bases[base - 1].uuid, UUID_BYTES);
    return pipeline_run(c->needed[base].n, &ops, &w);
}
