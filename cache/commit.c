/*
 * Commits, from the seal to the index. The committer seals: for an instant no write runs, and what
 * is dirty is the commit. It plans the segments; uploaders pack and store them (upload.c); when all
 * up to the last are in the log, in order, the flushes that waited return; the indexer takes the
 * places into index.db, and lets the chunks go.
 */
#include "volume_internal.h"

#include "../store/msg.h"
#include "../store/scope.h"

enum { WRITEBACK_BYTES = 64 * 1024 * 1024, MEMORY_WAIT_MS = 100, INDEX_WAIT_MS = 1000 };

/* ------------------------------------------------------------------ sealing */

static bool has_dirt(const struct volume *v)
{
    return v->chunks.dirty_cost > 0 || v->size_changed;
}

static bool may_seal(const struct volume *v)
{
    return !v->packing && v->ncommits < COMMITS_MAX && v->state == VOLUME_OK && has_dirt(v);
}

/* Who wants dirt to wait longer than by default wants more of it to gather, too. */
bool volume_dirty_enough(const struct volume *v)
{
    uint64_t delays = MAX((uint64_t)v->cfg.writeback_ms / WRITEBACK_MS, UINT64_C(1));

    return v->chunks.dirty_cost * BLOCK_BYTES >=
           MIN(delays * WRITEBACK_BYTES, v->cfg.dirty_bytes / 4);
}

static bool should_seal(const struct volume *v)
{
    return may_seal(v) && (v->wanted > v->sealed || v->pressed > 0 || volume_dirty_enough(v) ||
                           v->clock->now_ms() >= v->dirty_since_ms + v->cfg.writeback_ms);
}

void volume_free_commit(struct commit *c)
{
    if (!c)
        return;
    free(c->chunks);
    free(c->order);
    free(c->segments);
    free(c->entries);
    free(c);
}

/* The dirty masks become the commit's. Lock held, no writer is inside. */
static void move_dirt(struct volume *v, struct commit *commit)
{
    struct chunks *t = &v->chunks;

    for (struct chunk *c = t->queues[QUEUE_HELD].first; c; c = c->next) {
        if (!c->dirty)
            continue;
        struct sealed_chunk *s = &commit->chunks[commit->nchunks];
        *s = (struct sealed_chunk){.chunk = c,
                                   .all = c->dirty,
                                   .zero = c->dirty & c->zero,
                                   .mask = c->dirty & ~c->zero,
                                   .slot = c->slot,
                                   .save_slot = SLOT_NONE};
        commit->order[commit->nchunks] = (uint32_t)commit->nchunks;
        commit->nchunks++;
        c->sealed = s;
        _Static_assert(COMMITS_MAX < 16, "commits of a chunk");
        c->commits++;
        c->unindexed |= c->dirty;
        chunk_set(t, c, c->valid, c->zero, 0);
    }
}

/* The next number is the commit's. Lock held. */
static void enqueue(struct volume *v, struct commit *commit)
{
    commit->number = ++v->sealed;
    v->ncommits++;
    *(v->newest ? &v->newest->next : &v->oldest) = commit;
    v->newest = commit;
}

/* Everything that was written before is in the commit, nothing after. Lock held, released while
 * writers leave. NULL: no memory now. */
static struct commit *seal(struct volume *v)
{
    struct commit *commit = calloc(1, sizeof *commit);

    while (v->writers > 0) {
        v->sealing = true; /* again, where a change of the size was faster */
        chunks_wait(&v->chunks);
    }
    if (commit) {
        size_t n = v->chunks.queues[QUEUE_HELD].n;
        commit->chunks = calloc(n + 1, sizeof *commit->chunks);
        commit->order = calloc(n + 1, sizeof *commit->order);
    }
    if (!commit || !commit->chunks || !commit->order) {
        volume_free_commit(commit);
        commit = NULL;
    } else {
        commit->cost = v->chunks.dirty_cost;
        v->uploading_cost += commit->cost;
        move_dirt(v, commit);
        commit->size_blocks = v->sealed_blocks = v->commit_blocks;
        v->size_changed = false;
        enqueue(v, commit);
        v->sealed_data = commit->number;
    }
    v->sealing = false;
    chunks_changed(&v->chunks);
    return commit;
}

int volume_preserve(struct volume *v, struct chunk *c, uint64_t mask)
{
    struct chunks *t = &v->chunks;
    uint64_t need = 0;
    struct sealed_chunk *s;
    int r = 0;

    pthread_mutex_lock(&t->lock);
    while ((s = c->sealed) && (need = mask & s->mask & ~s->saved) && s->save_slot == SLOT_NONE) {
        uint32_t slot = chunks_take_slot(t);
        if (slot == SLOT_NONE) {
            r = -EBUSY;
            break;
        }
        if (c->sealed == s && s->save_slot == SLOT_NONE)
            s->save_slot = slot;
        else
            chunks_give_slot(t, slot);
    }
    pthread_mutex_unlock(&t->lock);
    if (r < 0 || !s || !need)
        return r;
    /* our op keeps the packer from these blocks, so the commit cannot be done with `s` */
    uint8_t *bytes = slots_bounce();
    uint64_t bad = 0;
    for (uint64_t rest = need; rest && r == 0;) {
        unsigned n, first = mask_run(rest, &n);
        r = bytes ? slots_read(v->slots, s->slot, first, n, bytes, &bad) : -ENOMEM;
        if (r == 0)
            r = slots_write(v->slots, s->save_slot, first, n, bytes);
        rest &= ~mask_range(first, n);
    }
    scope_lock(&t->lock);
    if (r == 0)
        s->saved |= need;
    return r == -EBADMSG ? volume_damaged_in_commit(v, c, bad) : r;
}

/* ------------------------------------------------------------------ planning */

struct planning {
    struct commit *commit;
    size_t entries_room, segments_room;
    uint64_t raw_bytes; /* of the newest segment */
};

static int grow(void *array, size_t n, size_t *room, size_t item_bytes)
{
    void **at = array;

    if (n < *room)
        return 0;
    size_t more = MAX(2 * *room, (size_t)64);
    void *p = realloc(*at, more * item_bytes);
    if (!p)
        return -ENOMEM;
    *at = p;
    *room = more;
    return 0;
}

static int plan_entry(struct planning *p, size_t chunk, enum entry_kind kind, uint64_t block,
                      unsigned nblocks)
{
    struct commit *c = p->commit;
    struct segment *s = c->nsegments ? &c->segments[c->nsegments - 1] : NULL;
    uint64_t bytes = kind == ENTRY_DATA ? nblocks * BLOCK_BYTES : 0;
    int r = 0;

    if (s && kind == ENTRY_ZERO && s->nentries > 0) {
        struct entry *last = &c->entries[c->nentries - 1];
        if (last->kind == ENTRY_ZERO && last->block + last->nblocks == block) {
            last->nblocks += nblocks;
            return 0;
        }
    }
    if (!s || s->nentries == LOG_ENTRIES_MAX || p->raw_bytes + bytes > LOG_SEGMENT_RAW_BYTES) {
        r = grow(&c->segments, c->nsegments, &p->segments_room, sizeof *c->segments);
        if (r < 0)
            return r;
        s = &c->segments[c->nsegments++];
        *s = (struct segment){.first_entry = c->nentries, .first_chunk = chunk};
        p->raw_bytes = 0;
    }
    r = grow(&c->entries, c->nentries, &p->entries_room, sizeof *c->entries);
    if (r < 0)
        return r;
    c->entries[c->nentries++] = (struct entry){.kind = kind, .block = block, .nblocks = nblocks};
    s->nentries++;
    p->raw_bytes += bytes;
    return 0;
}

static int plan_chunk(struct planning *p, size_t at)
{
    const struct sealed_chunk *s = &p->commit->chunks[p->commit->order[at]];
    uint64_t base = s->chunk->number * CHUNK_BLOCKS, rest = s->all;
    int r = 0;

    while (rest && r == 0) {
        unsigned first = (unsigned)__builtin_ctzll(rest), n;
        bool zero = s->zero >> first & 1;
        (void)mask_run((zero ? s->zero : s->all & ~s->zero) >> first, &n);
        if (!zero) /* a frame never crosses these lines: later ones then cover it whole */
            n = MIN(n, FRAME_BLOCKS - first % FRAME_BLOCKS);
        r = plan_entry(p, at, zero ? ENTRY_ZERO : ENTRY_DATA, base + first, n);
        rest &= ~mask_range(first, n);
    }
    return r;
}

static int by_number(const void *a, const void *b, void *commit)
{
    const struct commit *c = commit;
    uint64_t x = c->chunks[*(const uint32_t *)a].chunk->number;
    uint64_t y = c->chunks[*(const uint32_t *)b].chunk->number;

    return x < y ? -1 : x > y;
}

/* -ENOMEM: try again. */
static int plan(struct commit *c)
{
    struct planning p = {.commit = c};
    int r = 0;

    c->nentries = c->nsegments = 0;
    free(c->entries);
    free(c->segments);
    c->entries = NULL;
    c->segments = NULL;
    qsort_r(c->order, c->nchunks, sizeof *c->order, by_number, c);
    for (size_t i = 0; i < c->nchunks && r == 0; i++)
        r = plan_chunk(&p, i);
    if (r == 0 && c->nsegments == 0) { /* only the size changed */
        r = grow(&c->segments, 0, &p.segments_room, sizeof *c->segments);
        if (r == 0)
            c->segments[c->nsegments++] = (struct segment){0};
    }
    return r;
}

/* ------------------------------------------------------------------ the committer */

/* Without memory a commit waits, and says so. Lock held, released. */
static void plan_until_done(struct volume *v, struct commit *commit)
{
    for (;;) {
        pthread_mutex_unlock(&v->chunks.lock);
        int r = plan(commit);
        if (r == 0)
            commit->first_seq = log_reserve(v->log, commit->nsegments);
        pthread_mutex_lock(&v->chunks.lock);
        commit->planned = r == 0;
        if (r == 0 || v->stopping)
            return;
        msg_warn("%s: out of memory for a commit; waiting", v->dir);
        v->clock->wait_until(&v->seal_wanted, &v->chunks.lock, v->clock->now_ms() + MEMORY_WAIT_MS);
    }
}

static bool may_move(const struct volume *v)
{
    return v->moving && !v->packing && v->ncommits < COMMITS_MAX && v->state == VOLUME_OK;
}

/* It shrank since they were gathered. */
static bool move_beyond(const struct volume *v, const struct commit *c)
{
    for (size_t i = 0; i < c->nentries; i++)
        if (c->entries[i].block + c->entries[i].nblocks > v->sealed_blocks)
            return true;
    return false;
}

/* Lock held; only this thread takes numbers. */
static void number_moves(struct volume *v)
{
    struct commit *commit = v->moving;

    pthread_cond_broadcast(&v->commit_moved);
    if (move_beyond(v, commit)) {
        commit->beyond = true;
        v->moving = NULL;
        return;
    }
    commit->size_blocks = v->sealed_blocks;
    commit->first_seq = log_reserve(v->log, 1);
    commit->planned = true;
    enqueue(v, commit);
    v->moving = NULL;
}

void *volume_committer(void *arg)
{
    struct volume *v = arg;

    pthread_mutex_lock(&v->chunks.lock);
    while (!v->stopping) {
        /* whoever flushes waits for the next number, which must be his: moves come second */
        if (!should_seal(v)) {
            if (may_move(v))
                number_moves(v);
            else if (may_seal(v))
                v->clock->wait_until(&v->seal_wanted, &v->chunks.lock,
                                     v->dirty_since_ms + v->cfg.writeback_ms);
            else
                pthread_cond_wait(&v->seal_wanted, &v->chunks.lock);
            continue;
        }
        struct commit *commit = seal(v);
        if (!commit) {
            v->clock->wait_until(&v->seal_wanted, &v->chunks.lock,
                                 v->clock->now_ms() + MEMORY_WAIT_MS);
            continue;
        }
        plan_until_done(v, commit);
        if (v->stopping)
            break;
        v->packing = commit;
        pthread_cond_signal(&v->pack_wanted);
        if (commit->nsegments > v->uploaders_ready)
            pthread_cond_broadcast(&v->more_wanted);
    }
    pthread_mutex_unlock(&v->chunks.lock);
    return NULL;
}

uint64_t volume_want_commit(struct volume *v)
{
    if (!has_dirt(v))
        return v->sealed_data;
    v->wanted = MAX(v->wanted, v->sealed + 1);
    pthread_cond_signal(&v->seal_wanted);
    return v->sealed + 1;
}

bool volume_is_durable(const struct volume *v)
{
    return !has_dirt(v) && v->durable >= v->sealed_data;
}

int volume_wait_durable(struct volume *v)
{
    int64_t timeout = v->cfg.timeout_ms, start = v->clock->now_ms();
    int64_t until = timeout > INT64_MAX - start ? INT64_MAX : start + timeout;

    scope_lock(&v->chunks.lock);
    int r = volume_check_state(v);
    uint64_t target = volume_want_commit(v);
    while (r == 0 && v->durable < target) {
        if (v->stopping)
            return -ECANCELED;
        if (v->clock->now_ms() >= until)
            return msg_error(-ETIMEDOUT,
                             "%s: a flush did not reach the bucket within %lld ms; the "
                             "data is kept, and still being uploaded",
                             store_url(v->store), (long long)timeout);
        if (until == INT64_MAX)
            pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
        else
            v->clock->wait_until(&v->commit_moved, &v->chunks.lock, until);
        r = volume_check_state(v);
    }
    return r;
}

/* ------------------------------------------------------------------ moves */

static struct commit *commit_of_moves(struct entry *entries, unsigned nentries)
{
    struct commit *c = calloc(1, sizeof *c);
    struct segment *s = calloc(1, sizeof *s);

    if (!c || !s) {
        free(entries);
        free(s);
        free(c);
        return NULL;
    }
    *s = (struct segment){.nentries = nentries};
    *c = (struct commit){
        .entries = entries, .nentries = nentries, .segments = s, .nsegments = 1, .packed = 1};
    return c;
}

/* Waits for the committer to number it. -ECANCELED, -EIO, -ENXIO (its blocks are beyond the end by
 * now): it will not, and it is freed. Lock held. */
static int wait_for_number(struct volume *v, struct commit *c)
{
    while (v->moving && !v->stopping && v->state == VOLUME_OK) /* another mover's */
        pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
    if (!v->moving)
        v->moving = c;
    pthread_cond_signal(&v->seal_wanted);
    while (v->moving == c && !v->stopping && v->state == VOLUME_OK)
        pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
    if (c->planned)
        return 0;
    if (v->moving == c)
        v->moving = NULL;
    bool beyond = c->beyond;
    volume_free_commit(c);
    return beyond ? -ENXIO : v->stopping ? -ECANCELED : -EIO;
}

int volume_append_moves(struct volume *v, struct entry *entries, unsigned nentries, void *buf,
                        size_t len)
{
    struct commit *c = commit_of_moves(entries, nentries);

    if (!c)
        return -ENOMEM;
    pthread_mutex_lock(&v->chunks.lock);
    int r = wait_for_number(v, c);
    uint64_t seq = r == 0 ? c->first_seq : 0, number = r == 0 ? c->number : 0;
    uint64_t size_blocks = r == 0 ? c->size_blocks : 0;
    pthread_mutex_unlock(&v->chunks.lock);
    if (r < 0)
        return r == -ENXIO ? 0 : r; /* what is left of it is found again */
    for (unsigned i = 0; i < nentries; i++)
        entries[i].seq = seq;
    r = log_append(v->log, seq, seq, seq, size_blocks, entries, nentries, buf, len);
    scope_lock(&v->chunks.lock);
    if (r == -ESTALE)
        volume_fail(v, VOLUME_FENCED);
    if (r < 0)
        return r;
    volume_stored(v, c);
    while (v->indexed < number && !v->stopping && v->state == VOLUME_OK)
        pthread_cond_wait(&v->commit_moved, &v->chunks.lock);
    return v->indexed >= number ? 0 : v->stopping ? -ECANCELED : -EIO;
}

/* ------------------------------------------------------------------ the indexer */

static struct log_position position_after(struct volume *v, const struct commit *c)
{
    struct index_meta meta;

    index_get_meta(v->index, &meta);
    meta.pos.seq = c->first_seq + c->nsegments - 1;
    meta.pos.next = meta.pos.seq + 1;
    meta.pos.size_blocks = c->size_blocks;
    return meta.pos;
}

/* Its places are in the index: the chunks may go. Lock held. */
static void let_go(struct volume *v, struct commit *commit)
{
    for (size_t i = 0; i < commit->nchunks; i++) {
        struct chunk *c = commit->chunks[i].chunk;
        if (--c->commits == 0)
            c->unindexed = 0;
        volume_correct_row(v, c); /* it stays until that is done */
        chunk_requeue(&v->chunks, c);
    }
    volume_forget_changes(v);
    v->oldest = commit->next;
    if (!v->oldest)
        v->newest = NULL;
    v->indexed = commit->number;
    if (v->ncommits-- == COMMITS_MAX)
        pthread_cond_signal(&v->seal_wanted);
    if (v->house_idle > 0)
        pthread_cond_broadcast(&v->house_wanted);
    pthread_cond_broadcast(&v->commit_moved);
}

/* False: not now. Lock held, released meanwhile. */
static bool index_commit(struct volume *v, struct commit *commit)
{
    pthread_mutex_unlock(&v->chunks.lock);
    struct log_position pos = position_after(v, commit);
    int r = checkpointer_apply(v, commit, &pos);
    if (r == -ENOSPC)
        (void)volume_use_less(v, 0);
    pthread_mutex_lock(&v->chunks.lock);
    if (r == -EBADMSG || r == -EIO) /* said already; the bucket has it all */
        volume_fail(v, VOLUME_FAILED);
    if (r < 0)
        return false;
    v->index_generation++;
    let_go(v, commit);
    chunks_tidy(&v->chunks, TIDY_SLOTS);
    volume_free_commit(commit);
    return true;
}

/* False: not now. Lock held, released meanwhile. */
static bool correct_rows(struct volume *v)
{
    v->record_wanted = false;
    pthread_mutex_unlock(&v->chunks.lock);
    int r = volume_record(v);
    if (r == -ENOSPC)
        (void)volume_use_less(v, 0);
    pthread_mutex_lock(&v->chunks.lock);
    if (r == -EBADMSG || r == -EIO) /* else who waits for the rows would do so for ever */
        volume_fail(v, VOLUME_FAILED);
    v->record_wanted = v->record_wanted || r < 0;
    return r == 0;
}

void *volume_indexer(void *arg)
{
    struct volume *v = arg;

    pthread_mutex_lock(&v->chunks.lock);
    for (;;) {
        bool fine = v->state != VOLUME_FAILED;
        bool ready = fine && v->oldest && v->oldest->number <= v->durable;
        if (!ready && v->stopping)
            break;
        if (!ready && !(fine && v->record_wanted)) {
            pthread_cond_wait(&v->index_wanted, &v->chunks.lock);
            continue;
        }
        bool done = !ready || index_commit(v, v->oldest);
        if (done && v->record_wanted && !v->stopping)
            done = correct_rows(v);
        if (!done && v->stopping)
            break; /* what could not be indexed is found in the log */
        if (!done)
            v->clock->wait_until(&v->index_wanted, &v->chunks.lock,
                                 v->clock->now_ms() + INDEX_WAIT_MS);
    }
    pthread_mutex_unlock(&v->chunks.lock);
    return NULL;
}
