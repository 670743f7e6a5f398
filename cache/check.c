/*
 * volume_check(): every object of the volume is read and every checksum in it compared; then every
 * place in the map must be in an object that is there. A line for each thing that is wrong.
 */
#include "offline.h"

#include "../store/checkpoint.h"
#include "../store/frame.h"
#include "../store/pipeline.h"
#include "../store/scope.h"
#include "catchup.h"
#include "scratch.h"

#include <inttypes.h>
#include <stdarg.h>

enum { PATIENCE_MS = 60000 };

struct check {
    struct store *store;
    struct superblock sb;
    struct scratch *scratch;
    FILE *report;
    uint64_t errors;
    uint64_t *seqs; /* of the objects in log/, ascending */
    size_t nseqs, room;
    uint64_t expect;     /* the next number of the chain */
    uint64_t gap;        /* the first number that is missing; 0: none so far */
    uint64_t checkpoint; /* the newest: before it a number is needed only if the map says so */
    uint64_t lost_seq;   /* a run of blocks in a missing object, to be reported; 0: none */
    uint64_t lost_block, lost_end;
    uint64_t objects, left_over, frames;
};

static void wrong(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct check *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vfprintf(c->report, fmt, ap);
    va_end(ap);
    (void)fputc('\n', c->report);
    c->errors++;
}

/* ------------------------------------------------------------------ segments and claims */

struct result {
    int error; /* it could not be read, or its head is damaged */
    const char *why;
    struct header header;
    struct entry *entries;
    bool *damaged; /* by entry */
};

struct body {
    uint8_t *data;
    size_t have, size;
};

static int check_frames(struct result *res, const uint8_t *data, size_t len)
{
    scope_free uint8_t *raw = malloc(CHUNK_BYTES);
    struct framer *framer;
    const void *blocks;

    if (!raw || framer_new(&framer) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < res->header.nentries; i++) {
        const struct entry *e = &res->entries[i];
        if (e->kind == ENTRY_DATA && e->seq == res->header.seq)
            res->damaged[i] = (uint64_t)e->offset + e->stored_bytes > len ||
                              frame_unpack(framer, e, data + e->offset, raw, &blocks) < 0;
    }
    framer_free(framer);
    return 0;
}

static void *check_object(void *ctx, size_t i)
{
    enum { MAX_BYTES = LOG_HEAD_BYTES + LOG_SEGMENT_RAW_BYTES };
    struct check *c = ctx;
    struct result *res = calloc(1, sizeof *res);
    scope_free uint8_t *data = malloc(MAX_BYTES);
    char key[STORE_KEY_MAX];
    size_t len;

    if (!res || !data) {
        free(res);
        return NULL;
    }
    log_key(c->seqs[i], key);
    res->error = store_get_head(c->store, key, data, MAX_BYTES, &len, NULL, PATIENCE_MS);
    if (res->error == 0)
        res->error =
            log_decode(&c->sb, c->seqs[i], data, len, &res->header, &res->entries, &res->why);
    if (res->error == 0 && len < res->header.object_bytes) {
        res->error = -EBADMSG;
        res->why = "truncated";
    }
    if (res->error == 0 && res->header.kind == HEADER_SEGMENT) {
        res->damaged = calloc(res->header.nentries + 1, sizeof *res->damaged);
        res->error = res->damaged ? check_frames(res, data, len) : -ENOMEM;
    }
    return res;
}

/* Does the map still point to this frame? */
static bool in_use(struct check *c, const struct entry *e)
{
    struct places p;

    if (index_load(c->scratch->index, e->block / CHUNK_BLOCKS, &p) < 0)
        return true;
    for (unsigned i = 0; i < p.n; i++)
        if (p.e[i].seq == e->seq && p.e[i].offset == e->offset)
            return true;
    return false;
}

static int use_object(void *ctx, size_t i, void *item)
{
    struct check *c = ctx;
    struct result *res = item;
    uint64_t seq = c->seqs[i];

    c->objects++;
    if (seq < c->expect) { /* a claim jumped over it: nobody will ever read it */
        c->left_over++;
        return 0;
    }
    if (seq > c->expect && !c->gap && c->expect > c->checkpoint)
        c->gap = c->expect;
    c->expect = seq + 1;
    if (res->error == -ENOENT)
        return 0; /* deleted meanwhile */
    if (res->error && res->error != -EBADMSG && res->error != -EPROTONOSUPPORT)
        return res->error;
    if (res->error) {
        wrong(c, "log/%016" PRIx64 ": %s", seq, res->why);
        return 0;
    }
    if (c->gap && (res->header.kind == HEADER_CLAIM || res->header.next > c->gap)) {
        wrong(c, "log/%016" PRIx64 ": is missing, though the log went on after it", c->gap);
        c->gap = 0;
    } else if (c->gap) { /* in flight when its writer was interrupted */
        c->left_over++;
    }
    if (res->header.kind == HEADER_CLAIM)
        c->expect = res->header.next;
    for (uint32_t n = 0; n < res->header.nentries && res->damaged; n++) {
        const struct entry *e = &res->entries[n];
        c->frames += e->kind == ENTRY_DATA;
        if (res->damaged[n])
            wrong(c,
                  "log/%016" PRIx64 ": damaged at byte %" PRIu32 ": blocks %" PRIu64 " to %" PRIu64
                  "%s",
                  seq, e->offset, e->block, e->block + e->nblocks - 1,
                  in_use(c, e) ? "" : " (overwritten since: no loss)");
    }
    return 0;
}

static void drop_object(void *item)
{
    struct result *res = item;

    free(res->entries);
    free(res->damaged);
    free(res);
}

static int add_seq(void *ctx, const char *key, uint64_t size_bytes)
{
    struct check *c = ctx;
    uint64_t seq;

    (void)size_bytes;
    if (sscanf(key, "log/%16" SCNx64, &seq) != 1)
        return 0;
    if (c->nseqs == c->room) {
        size_t room = MAX(2 * c->room, (size_t)1024);
        uint64_t *more = realloc(c->seqs, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        c->seqs = more;
        c->room = room;
    }
    c->seqs[c->nseqs++] = seq;
    return 0;
}

static int check_log(struct check *c)
{
    static const struct pipeline_ops ops = {check_object, use_object, drop_object};

    c->expect = c->nseqs ? c->seqs[0] : 1;
    return pipeline_run(c->nseqs, &ops, c);
}

/* ------------------------------------------------------------------ checkpoints and the map */

static int ignore_entries(void *ctx, const struct entry *entries, size_t n)
{
    (void)ctx;
    (void)entries;
    (void)n;
    return 0;
}

static int check_root(void *ctx, const char *key, uint64_t size_bytes)
{
    struct check *c = ctx;
    struct log_position pos;
    uint64_t seq;

    (void)size_bytes;
    if (sscanf(key, "map/%16" SCNx64, &seq) != 1)
        return 0;
    int r = checkpoint_load(c->scratch->log, seq, ignore_entries, NULL, PATIENCE_MS, &pos);
    if (r == -EBADMSG || r == -EPROTONOSUPPORT)
        wrong(c, "%s: this checkpoint is damaged, or one of its parts", key);
    else if (r == -ENOENT && seq >= c->checkpoint)
        wrong(c, "%s: a part of this checkpoint is missing", key);
    else if (r == -ENOENT)
        return 0; /* stored late by a fenced writer: a newer one's was there already, and nobody
                     reads it */
    else if (r < 0)
        return r;
    return 0;
}

static bool is_there(const struct check *c, uint64_t seq)
{
    size_t low = 0, high = c->nseqs;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->seqs[mid] < seq)
            low = mid + 1;
        else
            high = mid;
    }
    return low < c->nseqs && c->seqs[low] == seq;
}

static void report_lost(struct check *c)
{
    if (c->lost_seq)
        wrong(c, "log/%016" PRIx64 ": is missing: blocks %" PRIu64 " to %" PRIu64, c->lost_seq,
              c->lost_block, c->lost_end - 1);
    c->lost_seq = 0;
}

static int check_places(void *ctx, const struct places *p)
{
    struct check *c = ctx;

    for (unsigned i = 0; i < p->n; i++) {
        const struct entry *e = &p->e[i];
        if (is_there(c, e->seq))
            continue;
        if (e->seq != c->lost_seq || e->block != c->lost_end) {
            report_lost(c);
            c->lost_seq = e->seq;
            c->lost_block = e->block;
        }
        c->lost_end = e->block + e->nblocks;
    }
    return 0;
}

static int check_map(struct check *c)
{
    struct index_view *view;
    struct log_position pos;
    int r = index_view_begin(c->scratch->index, &view, &pos);

    if (r < 0)
        return r;
    r = index_view_each(view, 0, VOLUME_BLOCKS_MAX / CHUNK_BLOCKS, check_places, c);
    report_lost(c);
    index_view_end(view);
    return r;
}

static int check_all(struct check *c)
{
    struct catchup up;
    int r = catchup(c->scratch->log, c->scratch->index, PATIENCE_MS, &up);

    if (r == -EBADMSG || r == -EPROTONOSUPPORT || r == -ENOENT)
        wrong(c, "the map cannot be read to the log's end: it cannot be mounted as it is");
    else if (r < 0)
        return r;
    c->checkpoint = up.checkpoint;
    /* after the map: somebody may be writing, and all that it names must be in the list */
    r = store_list(c->store, "log/", "", add_seq, c, PATIENCE_MS);
    if (r < 0)
        return r;
    r = store_list(c->store, "map/", "", check_root, c, PATIENCE_MS);
    if (r == 0)
        r = check_log(c);
    return r == 0 ? check_map(c) : r;
}

int volume_check(struct store *store, FILE *report, uint64_t *ret_errors)
{
    struct check c = {.store = store, .report = report};
    int r = superblock_load(store, &c.sb, PATIENCE_MS);

    if (r == -EBADMSG || r == -EPROTONOSUPPORT) {
        wrong(&c, "volume: the superblock is damaged");
        *ret_errors = c.errors;
        return 0;
    }
    if (r == 0)
        r = scratch_new(store, &c.sb, &c.scratch);
    if (r == 0)
        r = check_all(&c);
    if (r == 0) {
        (void)fprintf(report,
                      "%" PRIu64 " objects of the log (%" PRIu64 " left over), %" PRIu64
                      " frames: %" PRIu64 " errors\n",
                      c.objects, c.left_over, c.frames, c.errors);
        *ret_errors = c.errors;
    }
    scratch_free(c.scratch);
    free(c.seqs);
    return r;
}
