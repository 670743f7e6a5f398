/*
 * Misses: what is missing is looked up in the map, its frames are sorted by place and cut into
 * downloads, each one ranged GET. A downloader takes the bytes as they come: a frame that is
 * complete is checked, unpacked, written to its slot and valid at once.
 */
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum {
    TRIES = 3,        /* for a frame that arrives damaged */
    MOVED_TRIES = 16, /* for blocks that are moved under our hands; each needs a checkpoint, too */
};

/* A reader that waits. */
struct demand {
    pthread_cond_t met;
    unsigned pending; /* wishes */
    int error;        /* the first one's */
};

/* One place that is being fetched: a frame, and the blocks of it that are missing. */
struct wish {
    struct wish *next;   /* in its download, by offset */
    struct chunk *chunk; /* pinned */
    struct entry entry;
    struct op op;    /* holds the blocks */
    unsigned coming; /* blocks, of chunks.coming_blocks */
    bool hole;       /* the chunk's slot had no disk space, and will be filled whole */
    struct demand *demand;
};

struct download {
    struct download *next;
    struct wish *wishes; /* of one segment of one log */
};

/* ------------------------------------------------------------------ planning */

struct plan {
    struct volume *v;
    size_t n, room;
    struct wish **wishes;
    bool hole; /* of the chunk at hand; see struct wish */
};

static uint64_t busy_blocks(const struct chunk *c)
{
    uint64_t mask = 0;

    for (const struct op *op = c->ops; op; op = op->next)
        mask |= op->mask;
    return mask;
}

/* Lock held. */
static int add_wish(struct plan *p, struct chunk *c, const struct entry *e, uint64_t mask,
                    struct demand *demand)
{
    if (p->n == p->room) {
        size_t room = MAX(2 * p->room, (size_t)64);
        struct wish **more = realloc(p->wishes, room * sizeof(struct wish *));
        if (!more)
            return -ENOMEM;
        p->wishes = more;
        p->room = room;
    }
    struct wish *w = malloc(sizeof *w);
    if (!w)
        return -ENOMEM;
    *w = (struct wish){.chunk = c, .entry = *e, .demand = demand, .hole = p->hole};
    chunk_begin(c, &w->op, mask, OP_FETCH);
    w->coming = mask_count(mask);
    p->v->chunks.coming_blocks += w->coming;
    c->pins++;
    if (demand)
        demand->pending++;
    p->wishes[p->n++] = w;
    return 0;
}

/* Only commits make room that is not here yet. */
static bool room_may_come(const struct volume *v)
{
    return !v->cfg.read_only && v->chunks.dirty_cost + v->uploading_cost > 0;
}

/* A slot for the chunk. With `wait`, as long as it takes; what cannot come is not waited for: the
 * cache is larger for a moment then. Lock held. */
static int need_slot(struct plan *p, struct chunk *c, unsigned nblocks, bool wait)
{
    struct volume *v = p->v;
    struct chunks *t = &v->chunks;
    int r = 0;

    while (r == 0 && !chunks_make_room(t, nblocks))
        r = !wait ? -EAGAIN : room_may_come(v) ? volume_wait_for_room(v) : 1;
    while (r >= 0 && c->slot == SLOT_NONE) {
        bool hole = false;
        uint32_t slot =
            nblocks == CHUNK_BLOCKS ? chunks_take_slot_to_fill(t, &hole) : chunks_take_slot(t);
        if (slot == SLOT_NONE)
            r = wait ? volume_wait_for_room(v) : -EAGAIN;
        else if (c->slot == SLOT_NONE)
            c->slot = slot;
        if (slot != SLOT_NONE && c->slot == slot)
            p->hole = hole;
        else if (slot != SLOT_NONE) /* somebody was faster while the lock was released */
            chunks_give_slot(t, slot);
    }
    return MIN(r, 0);
}

/* Wishes for the places that hold missing blocks of `want`. Lock held. */
static int wish_for(struct plan *p, struct chunk *c, uint64_t want, const struct places *places,
                    struct demand *demand)
{
    want &= ~c->valid;
    if (want & ~places_mask(places))
        return msg_error(-EIO,
                         "%s: index.db has no place for blocks of chunk %" PRIu64
                         "; unmount and delete the cache directory",
                         p->v->dir, c->number);
    for (unsigned i = 0; i < places->n; i++) {
        const struct entry *e = &places->e[i];
        uint64_t place = mask_range((unsigned)(e->block % CHUNK_BLOCKS), (unsigned)e->nblocks);
        uint64_t mask = place & ~c->valid & ~busy_blocks(c);
        if (!(place & want) || !mask)
            continue;
        int r = add_wish(p, c, e, mask, demand);
        if (r < 0)
            return r;
        if (demand)
            p->v->misses += mask_count(mask & want);
    }
    return 0;
}

static int plan_chunk(struct plan *p, uint64_t number, uint64_t want, struct demand *demand)
{
    struct volume *v = p->v;
    struct chunks *t = &v->chunks;
    struct places places;
    struct chunk *c;

    p->hole = false;
    pthread_mutex_lock(&t->lock);
    int r = volume_obtain(v, number, false, &c);
    if (r < 0 || !c) {
        pthread_mutex_unlock(&t->lock);
        return r;
    }
    if (demand)
        v->hits += mask_count(want & c->valid);
    want &= ~c->valid;
    if (want) {
        r = need_slot(p, c, mask_count(want), demand != NULL);
        for (bool current = false; r == 0 && !current;) {
            uint64_t generation = v->index_generation;
            pthread_mutex_unlock(&t->lock);
            r = index_load(v->index, number, &places);
            pthread_mutex_lock(&t->lock);
            current = generation == v->index_generation;
        }
        r = r == -EBADMSG ? -EIO : r; /* said; that would be a damaged slot */
    }
    if (r == 0 && want)
        r = wish_for(p, c, want, &places, demand);
    chunk_unpin(t, c);
    pthread_mutex_unlock(&t->lock);
    return r;
}

/* The blocks that touch [offset, end), chunk by chunk. */
static int plan_range(struct plan *p, uint64_t offset, uint64_t end, struct demand *demand)
{
    uint64_t block = offset / BLOCK_BYTES, end_block = DIV_UP(end, (uint64_t)BLOCK_BYTES);
    int r = 0;

    while (block < end_block && r == 0) {
        unsigned first = (unsigned)(block % CHUNK_BLOCKS);
        unsigned n = (unsigned)MIN(end_block - block, (uint64_t)(CHUNK_BLOCKS - first));
        r = plan_chunk(p, block / CHUNK_BLOCKS, mask_range(first, n), demand);
        block += n;
    }
    return r;
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = &(*(struct wish *const *)a)->entry;
    const struct entry *y = &(*(struct wish *const *)b)->entry;

    return x->base != y->base       ? (x->base < y->base ? -1 : 1)
           : x->seq != y->seq       ? (x->seq < y->seq ? -1 : 1)
           : x->offset != y->offset ? (x->offset < y->offset ? -1 : 1)
                                    : 0;
}

static bool belongs(const struct entry *first, const struct entry *last, const struct entry *e)
{
    return e->base == last->base && e->seq == last->seq &&
           e->offset <= last->offset + last->stored_bytes + DOWNLOAD_GAP &&
           e->offset + e->stored_bytes - first->offset <= DOWNLOAD_BYTES;
}

static void finish_wish(struct volume *v, struct wish *w, uint64_t filled, int error);

/* -ECANCELED: nobody downloads any more. */
static int enqueue(struct volume *v, struct download *d, bool urgent)
{
    scope_lock(&v->chunks.lock);
    if (v->stopping)
        return -ECANCELED;
    if (!v->downloads_first || !urgent) {
        *(v->downloads_last ? &v->downloads_last->next : &v->downloads_first) = d;
        v->downloads_last = d;
    } else {
        d->next = v->downloads_first;
        v->downloads_first = d;
    }
    pthread_cond_signal(&v->fetch_wanted);
    return 0;
}

/* Cuts the plan into downloads and hands them over. Those waited for go first. */
static void start(struct volume *v, struct plan *p, bool urgent)
{
    if (p->n > 0)
        qsort(p->wishes, p->n, sizeof(struct wish *), by_place);
    for (size_t i = 0; i < p->n;) {
        struct download *d = malloc(sizeof *d);
        size_t last = i;
        int r = -ENOMEM;
        while (last + 1 < p->n && belongs(&p->wishes[i]->entry, &p->wishes[last]->entry,
                                          &p->wishes[last + 1]->entry)) {
            p->wishes[last]->next = p->wishes[last + 1];
            last++;
        }
        if (d) {
            *d = (struct download){.wishes = p->wishes[i]};
            r = enqueue(v, d, urgent);
        }
        for (size_t j = i; r < 0 && j <= last; j++)
            finish_wish(v, p->wishes[j], 0, r);
        if (r < 0)
            free(d);
        i = last + 1;
    }
    free(p->wishes);
}

static int fetch_once(struct volume *v, uint64_t offset, uint64_t len, uint64_t ahead_end)
{
    struct demand demand = {.met = PTHREAD_COND_INITIALIZER};
    struct plan p = {.v = v};
    int r = plan_range(&p, offset, offset + len, &demand);

    if (r == 0 && ahead_end > offset + len) /* one GET for both, where they are neighbours */
        (void)plan_range(&p, offset + len, MIN(ahead_end, volume_size_bytes(v)), NULL);
    start(v, &p, true);
    scope_lock(&v->chunks.lock);
    while (demand.pending > 0)
        pthread_cond_wait(&demand.met, &v->chunks.lock);
    return r < 0 ? r : demand.error;
}

/* What is moved between the map and the GET is looked up again. */
int volume_fetch(struct volume *v, uint64_t offset, uint64_t len, uint64_t ahead_end)
{
    int r = -ESTALE;

    for (int tries = 0; r == -ESTALE && tries < MOVED_TRIES; tries++)
        r = fetch_once(v, offset, len, ahead_end);
    return r == -ESTALE ? -EIO : r;
}

void volume_prefetch(struct volume *v, uint64_t offset, uint64_t end)
{
    struct plan p = {.v = v};

    end = MIN(end, volume_size_bytes(v));
    if (offset < end)
        (void)plan_range(&p, offset, end, NULL); /* what could be planned is fetched */
    start(v, &p, false);
}

/* ------------------------------------------------------------------ downloading */

/* Frees the wish; `filled` blocks are valid now. */
static void finish_wish(struct volume *v, struct wish *w, uint64_t filled, int error)
{
    struct chunks *t = &v->chunks;
    struct chunk *c = w->chunk;

    scope_lock(&t->lock);
    filled &= ~w->op.stale;
    t->coming_blocks -= w->coming;
    if (filled)
        chunk_set(t, c, c->valid | filled, c->zero & ~filled, c->dirty);
    chunk_end(t, c, &w->op);
    chunk_unpin(t, c);
    if (w->demand) {
        if (error && !w->demand->error)
            w->demand->error = error;
        if (--w->demand->pending == 0)
            pthread_cond_signal(&w->demand->met);
    }
    free(w);
}

/* `raw` are the frame's blocks: those still missed go to the slot. */
static void fill(struct volume *v, struct wish *w, const uint8_t *raw)
{
    unsigned frame_first = (unsigned)((w->entry.block - w->entry.skip) % CHUNK_BLOCKS);
    uint64_t mask, rest;
    int r = 0;

    pthread_mutex_lock(&v->chunks.lock);
    w->op.filling = true;
    mask = rest = w->op.mask; /* writers may have taken some */
    pthread_mutex_unlock(&v->chunks.lock);
    while (rest && r == 0) {
        unsigned n, first = mask_run(rest, &n);
        r = slots_write(v->slots, w->chunk->slot, first, n,
                        raw + (size_t)(first - frame_first) * BLOCK_BYTES);
        rest &= ~mask_range(first, n);
    }
    if (r < 0 && r != -ENOSPC)
        r = msg_error(-EIO, "%s: writing the cache: %s", v->dir, strerror(-r));
    finish_wish(v, w, r < 0 ? 0 : mask, r);
}

struct receiving {
    struct volume *v;
    struct store *store; /* the volume's, or a base's; NULL: that is not there any more */
    const char *url;
    struct framer *framer;
    struct wish *wishes; /* not finished yet */
    uint64_t at;         /* offset in the object of the byte that comes next */
    size_t have;         /* of the first wish's frame, in `stored` */
    bool damaged;        /* … and its checksum did not match */
    bool begun;          /* bytes have come */
    uint8_t *stored, *raw;
};

/* The first frame is complete. It may hold several wishes: what is left around an overwritten
 * block. */
static int take_frame(struct receiving *rx)
{
    struct entry e = rx->wishes->entry;
    const void *raw;

    rx->have = 0;
    if (frame_unpack(rx->framer, &e, rx->stored, rx->raw, &raw) < 0) {
        rx->damaged = true;
        return -EBADMSG;
    }
    while (rx->wishes && rx->wishes->entry.offset == e.offset) {
        struct wish *w = rx->wishes;
        rx->wishes = w->next;
        fill(rx->v, w, raw);
    }
    return 0;
}

/* Disk space, once it is clear that there is something to fill it. Fresh slots are neighbours,
 * mostly. */
static void allocate(struct receiving *rx)
{
    uint32_t first = SLOT_NONE, n = 0;

    for (const struct wish *w = rx->wishes; w; w = w->next) {
        uint32_t slot = w->chunk->slot;
        if (!w->hole || (n > 0 && slot == first + n - 1))
            continue;
        if (n > 0 && slot != first + n) {
            slots_allocate(rx->v->slots, first, n);
            n = 0;
        }
        if (n == 0)
            first = slot;
        n++;
    }
    if (n > 0)
        slots_allocate(rx->v->slots, first, n);
}

static int receive(void *ctx, const void *data, size_t len)
{
    struct receiving *rx = ctx;
    const uint8_t *p = data;

    if (!rx->begun)
        allocate(rx);
    rx->begun = true;
    while (len > 0 && rx->wishes) {
        const struct entry *e = &rx->wishes->entry;
        size_t n;
        if (rx->at < e->offset) { /* a gap */
            n = MIN(len, e->offset - rx->at);
        } else {
            n = MIN(len, e->stored_bytes - rx->have);
            memcpy(rx->stored + rx->have, p, n);
            rx->have += n;
        }
        p += n;
        len -= n;
        rx->at += n;
        if (rx->have == e->stored_bytes) {
            int r = take_frame(rx);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static void fail_first_frame(struct receiving *rx, int error)
{
    struct entry e = rx->wishes->entry;

    while (rx->wishes && rx->wishes->entry.offset == e.offset) {
        struct wish *w = rx->wishes;
        rx->wishes = w->next;
        finish_wish(rx->v, w, 0, error);
    }
}

static int get_rest(struct receiving *rx)
{
    const struct entry *first = &rx->wishes->entry, *last = first;
    char key[STORE_KEY_MAX];

    for (struct wish *w = rx->wishes; w; w = w->next)
        last = &w->entry;
    rx->at = first->offset;
    rx->have = 0;
    rx->damaged = rx->begun = false;
    log_key(first->seq, key);
    if (!rx->store)
        return -ENOENT;
    return store_get(rx->store, key, first->offset,
                     last->offset + last->stored_bytes - first->offset, receive, rx,
                     volume_patience_ms(rx->v));
}

/* The segment is not there: was what the first wish wants moved, after the map was asked? */
static bool was_moved(struct receiving *rx)
{
    const struct entry *e = &rx->wishes->entry;
    struct places p;

    if (index_load(rx->v->index, e->block / CHUNK_BLOCKS, &p) < 0)
        return false;
    for (unsigned i = 0; i < p.n; i++)
        if (p.e[i].block <= e->block && e->block < p.e[i].block + p.e[i].nblocks)
            return p.e[i].base != e->base || p.e[i].seq != e->seq || p.e[i].offset != e->offset;
    return true;
}

static bool is_fenced(struct volume *v)
{
    bool fenced = log_still_ours(v->log, volume_patience_ms(v)) == -ESTALE;

    if (fenced) {
        scope_lock(&v->chunks.lock);
        volume_fail(v, VOLUME_FENCED);
    }
    return fenced;
}

/* What the map still needs. -ENOENT, silently: for a view that follows, a newer instant may not. */
static int missing(struct receiving *rx, unsigned base, uint64_t seq)
{
    struct volume *v = rx->v;

    if (v->cfg.follow_ms)
        return -ENOENT;
    if (v->cfg.read_only)
        return volume_gone(v, rx->url, seq);
    if (!base && is_fenced(v))
        return -EIO; /* a newer writer deleted what its map does not need; said */
    return msg_error(-EIO, "%s: log/%016" PRIx64 ": is missing; see `s3vol check`", rx->url, seq);
}

/* Every wish is finished when this returns. Bytes damaged on the way are asked for again. */
static void run(struct receiving *rx)
{
    unsigned tries = 0;
    uint64_t seq = rx->wishes->entry.seq;
    unsigned base = rx->wishes->entry.base;

    rx->store = base ? rx->v->bases.stores[base - 1] : rx->v->store;
    rx->url = base ? rx->v->sb.bases[base - 1].url : store_url(rx->v->store);

    while (rx->wishes) {
        uint32_t offset = rx->wishes->entry.offset;
        int r = get_rest(rx);
        if (!rx->wishes)
            break;
        tries = rx->wishes->entry.offset == offset ? tries + 1 : 1;
        if (rx->damaged && tries < TRIES)
            continue;
        const struct entry *e = &rx->wishes->entry;
        if (r == -ENOENT && was_moved(rx)) {
            fail_first_frame(rx, -ESTALE);
            continue;
        }
        if (rx->damaged)
            msg_error(0,
                      "%s: log/%016" PRIx64 ": damaged at byte %" PRIu32 ": blocks %" PRIu64
                      " to %" PRIu64 " cannot be read; see `s3vol check`",
                      rx->url, seq, e->offset, e->block, e->block + e->nblocks - 1);
        else if (r == -ENOENT)
            r = missing(rx, base, seq);
        r = r == -ETIMEDOUT || r == -ENOENT ? r : -EIO;
        fail_first_frame(rx, r);
        tries = 0;
        while (rx->wishes && !rx->damaged) /* nothing of it can be had now */
            fail_first_frame(rx, r);
    }
}

/* *ret_end: the volume is being closed; nobody waits for this. */
static struct download *next_download(struct volume *v, bool *ret_end)
{
    scope_lock(&v->chunks.lock);
    while (!v->stopping && !v->downloads_first)
        pthread_cond_wait(&v->fetch_wanted, &v->chunks.lock);
    struct download *d = v->downloads_first;
    *ret_end = v->stopping;
    if (d) {
        v->downloads_first = d->next;
        if (!d->next)
            v->downloads_last = NULL;
        v->downloading++;
    }
    return d;
}

void *volume_downloader(void *arg)
{
    struct volume *v = arg;
    struct receiving rx = {.v = v};
    struct download *d;
    bool end;

    rx.stored = aligned_alloc(BLOCK_BYTES, CHUNK_BYTES);
    rx.raw = aligned_alloc(BLOCK_BYTES, CHUNK_BYTES);
    int r = rx.stored && rx.raw ? framer_new(&rx.framer) : -ENOMEM;
    while ((d = next_download(v, &end)) != NULL) {
        rx.wishes = d->wishes;
        free(d);
        if (r == 0 && !end)
            run(&rx);
        while (rx.wishes)
            fail_first_frame(&rx, end ? -ECANCELED : r);
        pthread_mutex_lock(&v->chunks.lock);
        v->downloading--;
        pthread_mutex_unlock(&v->chunks.lock);
    }
    framer_free(rx.framer);
    free(rx.stored);
    free(rx.raw);
    return NULL;
}
