/*
 * Writing. A write of up to UNIT_BYTES is one unit: it is in a commit whole or not at all. Its
 * steps: room under the dirty limit; the blocks that it covers only in part, fetched if they are
 * not here; the chunks and their slots; the blocks, held against everybody else; then, while no
 * commit can be sealed, the bytes; at last the masks.
 */
#include "volume_internal.h"

#include "../store/bytes.h"
#include "../store/scope.h"

#include <string.h>

/* One chunk's part of a unit. */
struct piece {
    struct chunk *chunk;         /* pinned */
    uint64_t mask;               /* blocks touched */
    uint64_t partial;            /* of these, covered in part only */
    uint64_t zero;               /* of these, zero afterwards */
    uint64_t was_zero, occupied; /* of the chunk, before: zero; with bytes in the slot */
    uint64_t bad;                /* blocks that had to be read, and were damaged in the slot */
    uint32_t offset;             /* in the chunk */
    size_t len;
    const uint8_t *data; /* NULL: zeros */
    struct op op;
};

struct unit {
    struct volume *v;
    uint64_t offset;
    size_t len;
    bool entering;    /* counted in entering_bytes */
    unsigned n, held; /* pieces; those whose blocks are held */
    struct piece pieces[UNIT_CHUNKS];
    uint8_t mixed[2][BLOCK_BYTES]; /* its first and its last block, if covered in part: as they will
                                      be; not aligned, which would take 8 KiB more of the stack */
};

/* Not by an initializer, which would clear `mixed`, too. */
static void begin_unit(struct unit *u, struct volume *v, uint64_t offset, size_t len)
{
    memset(u, 0, offsetof(struct unit, mixed));
    u->v = v;
    u->offset = offset;
    u->len = len;
}

static uint64_t full_zero_blocks(const struct piece *p)
{
    uint64_t zero = 0;

    for (uint64_t rest = p->mask & ~p->partial; rest; rest &= rest - 1) {
        unsigned block = (unsigned)__builtin_ctzll(rest);
        if (!p->data || all_zero(p->data + (block * BLOCK_BYTES - p->offset), BLOCK_BYTES))
            zero |= UINT64_C(1) << block;
    }
    return zero;
}

static void cut_into_pieces(struct unit *u, const uint8_t *data)
{
    for (size_t done = 0; done < u->len; u->n++) {
        struct piece *p = &u->pieces[u->n];
        uint64_t at = u->offset + done;
        p->offset = (uint32_t)(at % CHUNK_BYTES);
        p->len = MIN(u->len - done, (size_t)(CHUNK_BYTES - p->offset));
        p->data = data ? data + done : NULL;
        unsigned first = p->offset / BLOCK_BYTES, end_byte = p->offset + (unsigned)p->len;
        p->mask = mask_range(first, DIV_UP(end_byte, BLOCK_BYTES) - first);
        if (p->offset % BLOCK_BYTES)
            p->partial |= UINT64_C(1) << first;
        if (end_byte % BLOCK_BYTES)
            p->partial |= UINT64_C(1) << (end_byte / BLOCK_BYTES);
        p->zero = full_zero_blocks(p);
        done += p->len;
    }
}

/* ------------------------------------------------------------------ getting ready */

static bool over_limit(const struct volume *v, size_t len)
{
    uint64_t dirty = (v->chunks.dirty_cost + v->uploading_cost) * BLOCK_BYTES;

    return dirty + v->entering_bytes + len > v->cfg.dirty_bytes ||
           v->chunks.queues[QUEUE_HELD].n >= DIRTY_CHUNKS_MAX;
}

/* Waits until so much more may be dirty. In bucket mode also until what an earlier mount left in
 * the cache is in the bucket: its rows vouch for the bytes in the slots, which must stay as they
 * were, or a crash would bring back half of what is written now. Lock held. */
static int admit(struct volume *v, size_t len, bool wait)
{
    int r = volume_check_state(v);

    while (r == 0 && v->cfg.sync == SYNC_BUCKET && v->nrecorded_dirty > 0)
        r = wait ? volume_wait_for_room(v) : -EAGAIN;
    /* the first write is always let in, however small the limit */
    while (r == 0 && over_limit(v, len) &&
           (v->chunks.queues[QUEUE_HELD].n > 0 || v->entering_bytes > 0))
        r = wait ? volume_wait_for_room(v) : -EAGAIN;
    return r;
}

/* Lock held. */
static int let_in(struct unit *u, bool wait)
{
    int r = u->entering ? 0 : admit(u->v, u->len, wait);

    if (r == 0 && !u->entering) {
        u->entering = true;
        u->v->entering_bytes += u->len;
    }
    return r;
}

/* What it wrote is dirty, or it failed. Lock held. */
static void arrived(struct unit *u)
{
    if (!u->entering)
        return;
    u->entering = false;
    u->v->entering_bytes -= u->len;
    chunks_changed(&u->v->chunks);
}

/* One that is filled whole, without a block of zeros left out, may have old bytes in it. Lock held.
 */
static uint32_t take_slot(struct chunks *t, const struct piece *p)
{
    bool hole, whole = p->mask == ~UINT64_C(0) && !p->partial && !p->zero;

    return whole ? chunks_take_slot_to_fill(t, &hole) : chunks_take_slot(t);
}

/* The slot of a piece that has bytes to store. Lock held. */
static int need_slot(struct volume *v, struct piece *p, bool wait)
{
    struct chunks *t = &v->chunks;
    struct chunk *c = p->chunk;

    if (!(p->mask & ~p->zero))
        return 0;
    while (!chunks_make_room(t, mask_count(p->mask)) || c->slot == SLOT_NONE) {
        uint32_t slot = c->slot == SLOT_NONE ? take_slot(t, p) : SLOT_NONE;
        if (slot != SLOT_NONE && c->slot == SLOT_NONE) {
            c->slot = slot;
            return 0; /* a little over the limit rather than stuck */
        }
        if (slot != SLOT_NONE)
            chunks_give_slot(t, slot); /* somebody was faster while the lock was released */
        if (c->slot != SLOT_NONE)
            return 0;
        int r = wait ? volume_wait_for_room(v) : -EAGAIN;
        if (r < 0)
            return r;
    }
    return 0;
}

/* Pins the chunks. Lock held. */
static int take_chunks(struct unit *u, bool wait)
{
    int r = 0;

    for (unsigned i = 0; i < u->n && r == 0; i++) {
        struct piece *p = &u->pieces[i];
        uint64_t number = (u->offset / CHUNK_BYTES) + i;
        if (!p->chunk)
            r = volume_obtain(u->v, number, true, &p->chunk);
        if (r == 0)
            r = need_slot(u->v, p, wait);
    }
    return r;
}

/* Fetches the blocks that are covered in part only and are not here. Lock held, released for it.
 * 1: something was fetched, look again. */
static int fetch_partial(struct unit *u, bool wait)
{
    for (unsigned i = 0; i < u->n; i++) {
        struct piece *p = &u->pieces[i];
        uint64_t missing = p->partial & ~p->chunk->valid;
        if (!missing)
            continue;
        if (!wait)
            return -EAGAIN;
        uint64_t block = p->chunk->number * CHUNK_BLOCKS + (unsigned)__builtin_ctzll(missing);
        pthread_mutex_unlock(&u->v->chunks.lock);
        int r = volume_fetch(u->v, block * BLOCK_BYTES, BLOCK_BYTES, 0);
        pthread_mutex_lock(&u->v->chunks.lock);
        if (r == 0 && !(p->chunk->valid >> (block % CHUNK_BLOCKS) & 1) &&
            chunk_busy(p->chunk, missing, OP_READ))
            chunk_wait(&u->v->chunks, p->chunk); /* another reader's fetch */
        return r < 0 ? r : 1;
    }
    return 0;
}

static void release(struct unit *u)
{
    while (u->held > 0) {
        struct piece *p = &u->pieces[--u->held];
        chunk_end(&u->v->chunks, p->chunk, &p->op);
    }
}

/* Holds the blocks of every piece, in order of chunks: so two units never wait for each other. Lock
 * held. */
static int hold_blocks(struct unit *u, bool wait)
{
    while (u->held < u->n) {
        struct piece *p = &u->pieces[u->held];
        chunk_steal(p->chunk, p->mask & ~p->partial);
        if (chunk_busy(p->chunk, p->mask, OP_WRITE)) {
            if (!wait)
                return -EAGAIN;
            chunk_wait(&u->v->chunks, p->chunk);
            continue;
        }
        chunk_begin(p->chunk, &p->op, p->mask, OP_WRITE);
        u->held++;
    }
    return 0;
}

/* All of the above, in order. Lock held. */
static int get_ready(struct unit *u, bool wait)
{
    int r = let_in(u, wait);

    for (unsigned i = 0; i < u->n; i++)
        u->pieces[i].zero &= ~u->pieces[i].partial; /* that was an earlier try's */
    if (r == 0)
        r = take_chunks(u, wait);
    while (r == 0) {
        while ((r = fetch_partial(u, wait)) == 1)
            ;
        if (r == 0)
            r = hold_blocks(u, wait);
        bool complete = true;
        for (unsigned i = 0; i < u->n; i++)
            complete = complete && !(u->pieces[i].partial & ~u->pieces[i].chunk->valid);
        if (r < 0 || complete)
            break;
        release(u); /* a fetch of somebody else's failed while we waited */
    }
    return r;
}

/* ------------------------------------------------------------------ the bytes */

static uint8_t *mixed_block(struct unit *u, const struct piece *p, unsigned block)
{
    return u->mixed[p == u->pieces && block == p->offset / BLOCK_BYTES ? 0 : 1];
}

/* A block covered in part: what was there, and the new bytes on top. */
static int mix_block(struct unit *u, struct piece *p, unsigned block)
{
    uint8_t *bytes = mixed_block(u, p, block);
    uint32_t begin = block * BLOCK_BYTES;
    uint32_t from = MAX(begin, p->offset),
             to = MIN(begin + BLOCK_BYTES, p->offset + (uint32_t)p->len);
    uint64_t bad = 0;
    int r = volume_copy_out(u->v, p->chunk->slot, p->was_zero, begin, BLOCK_BYTES, bytes, &bad);

    p->bad |= bad;
    if (r < 0)
        return r;
    if (p->data)
        memcpy(bytes + (from - begin), p->data + (from - p->offset), to - from);
    else
        memset(bytes + (from - begin), 0, to - from);
    if (all_zero(bytes, BLOCK_BYTES))
        p->zero |= UINT64_C(1) << block;
    return 0;
}

/* Before anything is overwritten: what is read for this may be damaged. */
static int mix_blocks(struct unit *u)
{
    int r = 0;

    for (unsigned i = 0; i < u->n && r == 0; i++) {
        struct piece *p = &u->pieces[i];
        p->bad = 0;
        for (uint64_t rest = p->partial; rest && r == 0; rest &= rest - 1)
            r = mix_block(u, p, (unsigned)__builtin_ctzll(rest));
    }
    return r;
}

/* Blocks of a chunk's slot that are to be written: those with bytes that count, or the others. */
static uint64_t blocks_of(const struct piece *p, bool occupied)
{
    return p->mask & ~p->zero & (occupied ? p->occupied : ~p->occupied);
}

/* How many pieces, from `i` on, are one run of whole blocks on the disk: their slots are
 * neighbours.
 */
static unsigned neighbours(const struct unit *u, unsigned i, bool occupied)
{
    const struct piece *p = &u->pieces[i], *end = &u->pieces[u->n];
    unsigned n = 0;

    while (&p[n] < end && !p[n].partial && blocks_of(&p[n], occupied) == p[n].mask &&
           p[n].chunk->slot == p->chunk->slot + n)
        n++;
    return MAX(n, 1U);
}

/* `n` neighbours, or one piece. */
static int write_blocks(struct unit *u, unsigned i, unsigned n, bool occupied)
{
    struct slots *slots = u->v->slots;
    struct piece *p = &u->pieces[i];
    uint64_t which = blocks_of(p, occupied), whole = which & ~p->partial;
    unsigned more = 0; /* blocks */
    int r = 0;

    if (!which) /* perhaps it has no slot, and somebody gives it one now */
        return 0;
    uint32_t slot = p->chunk->slot;
    for (unsigned k = 1; k < n; k++)
        more += mask_count(p[k].mask);
    while (r == 0 && whole) {
        unsigned run, first = mask_run(whole, &run);
        r = slots_write(slots, slot, first, run + more,
                        p->data + (first * BLOCK_BYTES - p->offset));
        whole &= ~mask_range(first, run);
    }
    for (uint64_t rest = p->partial & which; r == 0 && rest; rest &= rest - 1) {
        unsigned block = (unsigned)__builtin_ctzll(rest);
        r = slots_write(slots, slot, block, 1, mixed_block(u, p, block));
    }
    return r;
}

/* Blocks that hold what counts. Half of them new cannot be let go of, or a commit would have half
 * of the unit; so where even overwriting takes space (copy-on-write file systems), this waits for
 * it here, where nothing can be sealed. What is said then is EIO: that is not tried again. */
static int overwrite_blocks(struct unit *u, unsigned i, unsigned n)
{
    unsigned full = 0;
    int r = write_blocks(u, i, n, true);

    while (r == -ENOSPC)
        if ((r = volume_use_less(u->v, full++)) == 0)
            r = write_blocks(u, i, n, true);
        else if (r == -ENOSPC)
            r = -EIO;
    return r;
}

/* What may fail for want of space comes first, while nothing that counts is overwritten: a unit
 * that is tried again must not be in a commit by half. *ret_done counts the pieces that are
 * written; the *ret_torn that follow failed half-way. */
static int write_pieces(struct unit *u, unsigned *ret_done, unsigned *ret_torn)
{
    int r = mix_blocks(u);

    for (unsigned i = 0; i < u->n && r == 0; i++)
        r = volume_preserve(u->v, u->pieces[i].chunk, u->pieces[i].mask & ~u->pieces[i].zero);
    for (unsigned i = 0, n; i < u->n && r == 0; i += n) {
        n = neighbours(u, i, false);
        r = write_blocks(u, i, n, false);
    }
    for (unsigned i = 0, n; i < u->n && r == 0; i += n) {
        n = neighbours(u, i, true);
        r = overwrite_blocks(u, i, n);
        *ret_done = r == 0 ? i + n : i;
        *ret_torn = r == 0 ? 0 : n;
    }
    return r;
}

/* `news` are dirty from now on. Lock held. */
static void mark(struct volume *v, struct chunk *c, uint64_t valid, uint64_t zero, uint64_t news)
{
    bool enough = volume_dirty_enough(v), first = !v->chunks.dirty_cost && !v->size_changed;

    if (news && first)
        v->dirty_since_ms = v->clock->now_ms();
    chunk_set(&v->chunks, c, valid, zero, c->dirty | news);
    if ((news && first) || (!enough && volume_dirty_enough(v)))
        pthread_cond_signal(&v->seal_wanted); /* the committer sets its alarm, or seals */
    if (news)
        volume_note_change(v, c);
}

/* The masks say what the slots hold now. Lock held. */
static void mark_written(struct volume *v, struct piece *p)
{
    struct chunk *c = p->chunk;
    /* zeros where the bucket has zeros, or nothing: nobody needs to hear of it */
    uint64_t news = p->mask & ~(p->zero & c->zero & ~c->dirty);

    if (news)
        mark(v, c, c->valid | p->mask, (c->zero & ~p->mask) | p->zero, news);
}

/* Enters the time in which nothing is sealed. Lock held. */
static int enter(struct volume *v)
{
    while (v->sealing)
        chunks_wait(&v->chunks);
    int r = volume_check_state(v);
    if (r == 0)
        v->writers++;
    return r;
}

static void leave(struct volume *v)
{
    v->writers--;
    chunks_changed(&v->chunks);
}

/* The slot's blocks hold old or new bytes, or both. What the bucket has is fetched again; what only
 * this slot has stays, as on a disk whose write failed. So do blocks that a commit under way holds,
 * but it holds them as they were: they are news, or the cache would go on with what the bucket has
 * not. Lock held. */
static void mark_torn(struct volume *v, const struct piece *p)
{
    struct chunk *c = p->chunk;
    uint64_t torn = p->mask & c->valid & ~c->zero & ~c->dirty;

    mark(v, c, c->valid & ~(torn & ~c->unindexed), c->zero, torn & c->unindexed);
    if (p->mask & c->dirty)
        volume_note_change(v, c); /* what is read there from now on, the next flush promises */
    if (torn)
        volume_correct_row(v, c);
}

/* As volume_damaged() says of the pieces. Lock held. */
static int note_damage(struct unit *u)
{
    int r = -EBADMSG;

    for (unsigned i = 0; i < u->n; i++)
        if (u->pieces[i].bad && volume_damaged(u->v, u->pieces[i].chunk, u->pieces[i].bad) == -EIO)
            r = -EIO;
    return r;
}

/* -EBUSY, -EBADMSG: nothing happened; let go of the blocks, and try again: when there may be more
 * slots, or with the damaged blocks fetched again. */
static int write_held(struct unit *u)
{
    struct volume *v = u->v;
    unsigned done = 0, torn = 0; /* pieces */
    int r = enter(v);

    if (r == 0 && u->offset + u->len > v->size_blocks * BLOCK_BYTES) { /* it shrank meanwhile */
        leave(v);
        r = -EINVAL;
    }
    if (r < 0)
        return r;
    for (unsigned i = 0; i < u->n; i++) {
        const struct chunk *c = u->pieces[i].chunk;
        u->pieces[i].was_zero = c->zero;
        u->pieces[i].occupied = c->valid & ~c->zero;
    }
    pthread_mutex_unlock(&v->chunks.lock);
    r = write_pieces(u, &done, &torn);
    pthread_mutex_lock(&v->chunks.lock);
    for (unsigned i = 0; i < done; i++)
        mark_written(v, &u->pieces[i]);
    for (unsigned i = done; i < done + torn; i++)
        mark_torn(v, &u->pieces[i]);
    leave(v);
    return r == -EBADMSG ? note_damage(u) : r;
}

/* The commit that needs a copy may wait for the blocks that we let go of. Is there a slot by now,
 * nobody would wake us. Lock held. */
static int wait_for_slot(struct volume *v)
{
    uint32_t slot = chunks_take_slot(&v->chunks);

    if (slot == SLOT_NONE)
        return volume_wait_for_room(v);
    chunks_give_slot(&v->chunks, slot);
    return 0;
}

/* After write_held(). Lock held. */
static int before_next_try(struct volume *v, int why, unsigned damaged, bool wait)
{
    return !wait ? -EAGAIN : why == -EBUSY ? wait_for_slot(v) : volume_try_again(v, damaged);
}

static int write_unit(struct volume *v, const uint8_t *data, size_t len, uint64_t offset, bool wait)
{
    struct unit u;
    unsigned damaged = 0;

    begin_unit(&u, v, offset, len);
    cut_into_pieces(&u, data);
    scope_lock(&v->chunks.lock);
    int r = get_ready(&u, wait);
    while (r == 0 && ((r = write_held(&u)) == -EBUSY || r == -EBADMSG)) {
        release(&u);
        damaged += r == -EBADMSG;
        r = before_next_try(v, r, damaged, wait);
        if (r == 0)
            r = get_ready(&u, wait);
    }
    release(&u);
    arrived(&u);
    for (unsigned i = 0; i < u.n; i++)
        if (u.pieces[i].chunk)
            chunk_unpin(&v->chunks, u.pieces[i].chunk);
    return r;
}

static int write_range(struct volume *v, const uint8_t *data, size_t len, uint64_t offset,
                       bool wait)
{
    unsigned full = 0;

    while (len > 0) {
        size_t n = MIN(len, (size_t)UNIT_BYTES);
        int r = write_unit(v, data, n, offset, wait);
        if (r == -ENOSPC && wait && (r = volume_use_less(v, full++)) == 0)
            continue;
        if (r < 0)
            return r == -ENOSPC && !wait ? -EAGAIN : r;
        wait = true; /* the rest must follow */
        data = data ? data + n : NULL;
        offset += n;
        len -= n;
    }
    return 0;
}

int volume_write(struct volume *v, const void *buf, size_t len, uint64_t offset, bool wait)
{
    int r = volume_check_writable(v);

    if (r == 0)
        r = volume_check_range(v, offset, len);
    return r < 0 ? r : write_range(v, buf, len, offset, wait);
}

int volume_zero_range(struct volume *v, size_t len, uint64_t offset)
{
    return write_range(v, NULL, len, offset, true);
}

/* Lock held. */
static int zero_piece(struct unit *u)
{
    int r = hold_blocks(u, true);

    if (r == 0)
        r = enter(u->v);
    if (r == 0) {
        mark_written(u->v, &u->pieces[0]);
        leave(u->v);
    }
    release(u);
    return r;
}

int volume_zero_blocks(struct volume *v, uint64_t number, uint64_t mask)
{
    struct piece p = {.mask = mask, .zero = mask};
    struct unit u;

    begin_unit(&u, v, 0, 0);
    u.n = 1;
    scope_lock(&v->chunks.lock);
    int r = admit(v, 0, true);
    if (r == 0)
        r = volume_obtain(v, number, false, &p.chunk);
    if (r < 0 || !p.chunk)
        return r;
    u.pieces[0] = p;
    if (mask & ~p.chunk->zero) /* else it is zero already */
        r = zero_piece(&u);
    chunk_unpin(&v->chunks, p.chunk);
    return r;
}
