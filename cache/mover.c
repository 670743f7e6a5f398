#include "mover.h"
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum {
    TRIES = 3, /* for a frame that arrives damaged */
    PATIENCE_MS = 60000,
};

/* Blocks of one old frame, within what will be one new frame. */
struct run {
    struct entry place;
    size_t raw_at; /* of its bytes in `raw` */
};

struct mover {
    struct volume *v;
    struct framer *framer;
    struct run *runs; /* LOG_ENTRIES_MAX */
    size_t nruns, raw_bytes;
    size_t raw_max;
    uint8_t *raw;   /* raw_max: the blocks, in their order */
    uint8_t *out;   /* what is downloaded, then the new segment */
    uint8_t *frame; /* one chunk: an old frame unpacked */
};

int mover_new(struct volume *v, size_t raw_bytes, struct mover **ret)
{
    struct mover *m = calloc(1, sizeof *m);

    if (!m)
        return -ENOMEM;
    m->v = v;
    m->runs = calloc(LOG_ENTRIES_MAX, sizeof *m->runs);
    m->raw_max = raw_bytes;
    m->raw = malloc(raw_bytes);
    m->out = malloc(HEADER_BYTES + LOG_ENTRIES_MAX * ENTRY_BYTES + raw_bytes);
    m->frame = malloc(CHUNK_BYTES);
    if (!m->runs || !m->raw || !m->out || !m->frame || framer_new(&m->framer) < 0) {
        mover_free(m);
        return -ENOMEM;
    }
    *ret = m;
    return 0;
}

void mover_free(struct mover *m)
{
    if (!m)
        return;
    framer_free(m->framer);
    free(m->runs);
    free(m->raw);
    free(m->out);
    free(m->frame);
    free(m);
}

bool mover_add(struct mover *m, const struct entry *place)
{
    uint64_t end = place->block + place->nblocks;
    uint64_t lines = (end - 1) / FRAME_BLOCKS - place->block / FRAME_BLOCKS + 1;

    if (m->nruns + lines > LOG_ENTRIES_MAX ||
        m->raw_bytes + place->nblocks * BLOCK_BYTES > m->raw_max)
        return false;
    for (uint64_t block = place->block; block < end;) { /* new frames do not cross these lines */
        struct entry e = *place;
        e.block = block;
        e.nblocks = MIN(end - block, FRAME_BLOCKS - block % FRAME_BLOCKS);
        e.skip = (uint8_t)(place->skip + (block - place->block));
        m->runs[m->nruns++] = (struct run){.place = e};
        block += e.nblocks;
    }
    m->raw_bytes += place->nblocks * BLOCK_BYTES;
    return true;
}

/* ------------------------------------------------------------------ reading */

static int by_block(const void *a, const void *b)
{
    const struct run *x = a, *y = b;

    return x->place.block < y->place.block ? -1 : x->place.block > y->place.block;
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = &((const struct run *)a)->place, *y = &((const struct run *)b)->place;

    return x->base != y->base      ? x->base - y->base
           : x->seq != y->seq      ? (x->seq < y->seq ? -1 : 1)
           : x->offset < y->offset ? -1
                                   : x->offset > y->offset;
}

/* Each run's bytes go where its blocks' order puts them. */
static void assign(struct mover *m)
{
    size_t at = 0;

    qsort(m->runs, m->nruns, sizeof *m->runs, by_block);
    for (size_t i = 0; i < m->nruns; i++) {
        m->runs[i].raw_at = at;
        at += m->runs[i].place.nblocks * BLOCK_BYTES;
    }
    qsort(m->runs, m->nruns, sizeof *m->runs, by_place);
}

/* How many runs from `first` on come with one GET. */
static size_t neighbours(const struct mover *m, size_t first)
{
    const struct entry *f = &m->runs[first].place, *last = f;
    size_t n = 1;

    for (; first + n < m->nruns; n++) {
        const struct entry *e = &m->runs[first + n].place;
        if (e->base != f->base || e->seq != f->seq ||
            e->offset > last->offset + last->stored_bytes + DOWNLOAD_GAP ||
            e->offset + e->stored_bytes - f->offset > MIN((size_t)DOWNLOAD_BYTES, m->raw_max))
            break;
        last = e;
    }
    return n;
}

struct receiving {
    uint8_t *to;
};

static int receive(void *ctx, const void *data, size_t len)
{
    struct receiving *rx = ctx;

    memcpy(rx->to, data, len);
    rx->to += len;
    return 0;
}

/* Unpacks the frames of runs [first, first + n), which begin at `from` in their object. */
static int take_frames(struct mover *m, size_t first, size_t n, uint32_t from)
{
    const void *blocks = NULL;

    for (size_t i = first; i < first + n; i++) {
        const struct run *run = &m->runs[i];
        if (i == first || run->place.offset != run[-1].place.offset) {
            int r = frame_unpack(m->framer, &run->place, m->out + (run->place.offset - from),
                                 m->frame, &blocks);
            if (r < 0)
                return r;
        }
        memcpy(m->raw + run->raw_at,
               (const uint8_t *)blocks + (size_t)run->place.skip * BLOCK_BYTES,
               run->place.nblocks * BLOCK_BYTES);
    }
    return 0;
}

/* The objects of a base are not ours. NULL: it is not there for us any more. */
static struct store *store_of(struct mover *m, const struct entry *e)
{
    return e->base ? m->v->bases.stores[e->base - 1] : m->v->store;
}

static const char *url_of(struct mover *m, const struct entry *e)
{
    return e->base ? m->v->sb.bases[e->base - 1].url : store_url(m->v->store);
}

static int download(struct mover *m, size_t first, size_t n, uint64_t *ret_bad)
{
    const struct entry *f = &m->runs[first].place, *last = &m->runs[first + n - 1].place;
    struct store *store = store_of(m, f);
    char key[STORE_KEY_MAX];
    int r = store ? -EBADMSG : -ENOENT;

    log_key(f->seq, key);
    for (int tries = 0; r == -EBADMSG && tries < TRIES; tries++) {
        struct receiving rx = {m->out};
        r = store_get(store, key, f->offset, last->offset + last->stored_bytes - f->offset, receive,
                      &rx, PATIENCE_MS);
        if (r == 0)
            r = take_frames(m, first, n, f->offset);
    }
    if (r == -EBADMSG || r == -ENOENT) {
        *ret_bad = f->base ? 0 : f->seq;
        r = msg_error(-EBADMSG,
                      "%s: log/%016" PRIx64 ": %s; its blocks stay where they are; see "
                      "`s3vol check`",
                      url_of(m, f), f->seq, r == -ENOENT ? "is missing" : "is damaged");
    }
    return r;
}

/* ------------------------------------------------------------------ packing */

/* Runs that follow each other within a line become one frame. `entries` has one for each run. */
static size_t pack(struct mover *m, struct entry *entries)
{
    size_t at = HEADER_BYTES + m->nruns * ENTRY_BYTES;

    qsort(m->runs, m->nruns, sizeof *m->runs, by_block);
    for (size_t i = 0, n; i < m->nruns; i += n) {
        const struct entry *first = &m->runs[i].place;
        struct entry frame = {.block = first->block, .nblocks = first->nblocks};
        for (n = 1; i + n < m->nruns; n++) {
            const struct entry *e = &m->runs[i + n].place;
            if (e->block != frame.block + frame.nblocks || e->block % FRAME_BLOCKS == 0)
                break;
            frame.nblocks += e->nblocks;
        }
        frame_pack(m->framer, m->raw + m->runs[i].raw_at, m->v->cfg.compress, &frame, m->out + at);
        frame.kind = ENTRY_MOVE;
        frame.offset = (uint32_t)at;
        at += frame.stored_bytes;
        for (size_t j = i; j < i + n; j++) {
            const struct entry *old = &m->runs[j].place;
            entries[j] = frame;
            entries[j].block = old->block;
            entries[j].nblocks = old->nblocks;
            entries[j].skip = (uint8_t)(old->block - frame.block);
            entries[j].old_seq = old->seq;
            entries[j].old_base = old->base;
        }
    }
    return at;
}

static int move(struct mover *m, uint64_t *ret_bytes, uint64_t *ret_bad)
{
    int r = 0;

    assign(m);
    for (size_t i = 0, n; i < m->nruns && r == 0; i += n) {
        n = neighbours(m, i);
        r = atomic_load(&m->v->moves_stopped) ? -ECANCELED : download(m, i, n, ret_bad);
    }
    if (r < 0)
        return r;
    struct entry *entries = calloc(m->nruns, sizeof *entries);
    if (!entries)
        return -ENOMEM;
    size_t len = pack(m, entries);
    r = volume_append_moves(m->v, entries, (unsigned)m->nruns, m->out, len);
    if (r == 0)
        *ret_bytes = len;
    return r;
}

int mover_commit(struct mover *m, uint64_t *ret_bytes, uint64_t *ret_bad)
{
    uint64_t bytes = 0, bad = 0;
    int r = m->nruns ? move(m, &bytes, &bad) : 0;

    m->nruns = m->raw_bytes = 0;
    if (r == 0)
        *ret_bytes = bytes;
    if (r == -EBADMSG)
        *ret_bad = bad;
    return r;
}
