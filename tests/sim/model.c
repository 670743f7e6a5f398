#include "model.h"
#include "sched.h"

#include "../../store/scope.h"

#include <inttypes.h>
#include <string.h>

unsigned model_clients;
bool model_disks_fail;

static struct {
    uint8_t owner[SECTORS_MAX];
    uint32_t generations;
    uint64_t ticks;
} model;

/* ------------------------------------------------------------------ stamps */

void model_start(uint32_t sectors)
{
    uint32_t most = sim_chance(1, 2) ? 200 : sectors / 4; /* all of them in most chunks, or few */

    for (uint32_t at = 0; at < SECTORS_MAX;) {
        uint32_t n = 1 + (uint32_t)sim_below(sim_chance(1, 2) ? 20 : most);
        uint8_t owner = at < sectors ? (uint8_t)sim_below(model_clients) : 0;
        for (; n > 0 && at < SECTORS_MAX; n--)
            model.owner[at++] = owner;
    }
}

int model_owner(uint32_t sector)
{
    return model.owner[sector];
}

uint32_t model_next_generation(void)
{
    return ++model.generations;
}

void model_stamp(uint8_t *sector, uint32_t at, uint32_t generation)
{
    const uint64_t a = 0x5851f42d4c957f2d, c = 0x14057b7ef767814f;
    uint64_t word[SECTOR_BYTES / 8];

    /* a linear congruential sequence, in four strands that need not wait for each other */
    word[0] = (uint64_t)generation << 32 | at;
    for (unsigned i = 1; i < 4; i++)
        word[i] = word[i - 1] * a + c;
    for (unsigned i = 4; i < ARRAY_SIZE(word); i++)
        word[i] = word[i - 4] * (a * a * a * a) + c * (1 + a + a * a + a * a * a);
    memcpy(sector, word, sizeof word);
}

uint32_t model_read_stamp(const uint8_t *sector, uint32_t at)
{
    uint8_t want[SECTOR_BYTES] = {0};
    uint64_t word;

    memcpy(&word, sector, sizeof word);
    if (word == 0)
        return memcmp(sector, want, SECTOR_BYTES) == 0 ? 0 : UINT32_MAX;
    model_stamp(want, at, (uint32_t)(word >> 32));
    return memcmp(sector, want, SECTOR_BYTES) == 0 ? (uint32_t)(word >> 32) : UINT32_MAX;
}

/* ------------------------------------------------------------------ eras */

struct era *era_new(struct era *before, int host, uint64_t epoch, const uint32_t *base,
                    uint32_t sectors)
{
    struct era *e = calloc(1, sizeof *e);

    *e = (struct era){.before = before, .host = host, .epoch = epoch, .base_sectors = sectors};
    e->base = calloc(SECTORS_MAX, sizeof *e->base);
    memcpy(e->base, base, sectors * sizeof *e->base);
    return e;
}

struct sim_op *era_begin(struct era *e, int c, enum op_kind kind, uint32_t first, uint32_t n)
{
    if (e->nops[c] == e->room[c]) {
        e->room[c] = 2 * e->room[c] + 64;
        e->ops[c] = realloc(e->ops[c], e->room[c] * sizeof **e->ops);
    }
    struct sim_op *op = &e->ops[c][e->nops[c]++];
    *op = (struct sim_op){.kind = kind, .first = first, .n = n, .began = ++model.ticks};
    op->generation = kind == OP_PUT ? model_next_generation() : 0;
    return op;
}

void era_end(struct era *e, int c)
{
    for (size_t n = e->nops[c]; n > 0 && !e->ops[c][n - 1].ended; n--)
        e->ops[c][n - 1].ended = ++model.ticks;
}

void era_cancel(struct era *e, int c)
{
    while (e->nops[c] > 0 && !e->ops[c][e->nops[c] - 1].ended)
        e->nops[c]--;
}

bool era_failed(struct era *e, int c)
{
    bool failed = false;

    for (size_t n = e->nops[c]; n > 0 && !e->ops[c][n - 1].ended; n--)
        failed = e->ops[c][n - 1].failed = true;
    return failed;
}

void era_settle(struct era *e, int c, const uint32_t *found)
{
    struct sim_op *op = &e->ops[c][e->nops[c] - 1];
    uint32_t first = op->first, n = op->n;

    op->failed = true;
    op->ended = ++model.ticks;
    op = era_begin(e, c, OP_SETTLE, first, n);
    op->each = malloc(n * sizeof *op->each);
    memcpy(op->each, found + first, n * sizeof *op->each);
    op->ended = ++model.ticks;
}

void era_completed(const struct era *e, size_t ret[CLIENTS_MAX])
{
    for (unsigned c = 0; c < model_clients; c++) {
        ret[c] = e->nops[c];
        while (ret[c] > 0 && !e->ops[c][ret[c] - 1].ended)
            ret[c]--;
    }
}

/* ------------------------------------------------------------------ one instant */

/* Which numbers of operations of one client give what was found. */
struct fits {
    bool *fit;          /* [0 … nops] */
    size_t least_wrong; /* how many sectors differ at best */
    size_t best;        /* after so many operations */
};

/* How many of the client's sectors in [first, first + n) differ. */
static size_t differences(const uint32_t *state, const uint32_t *found, int c, uint32_t first,
                          uint32_t n)
{
    size_t wrong = 0;

    for (uint32_t s = first; s < first + n; s++)
        wrong += state[s] != found[s] && model.owner[s] == c;
    return wrong;
}

static bool changes(const struct sim_op *op, uint32_t s)
{
    return op->kind != OP_GROW && s - op->first < op->n;
}

/* What the sector is after it. */
static uint32_t leaves(const struct sim_op *op, uint32_t s)
{
    return op->kind == OP_SETTLE ? op->each[s - op->first] : op->generation;
}

static void apply(uint32_t *state, const struct sim_op *op)
{
    for (uint32_t s = op->first; changes(op, s); s++)
        state[s] = leaves(op, s);
}

/* May it have taken effect in part? One that failed, or may have; or a large clearing under way. */
static bool may_be_partial(const struct sim_op *op)
{
    return op->failed || (model_disks_fail && !op->ended) || op->kind == OP_CLEAR_LOOSELY;
}

/* Does the sector differ because an operation reached it that took effect in part? */
static bool reached(const struct sim_op *op, uint32_t s, uint32_t found)
{
    return op && may_be_partial(op) && changes(op, s) && found == op->generation;
}

static size_t count_reached(const uint32_t *state, const uint32_t *found, int c,
                            const struct sim_op *op)
{
    size_t n = 0;

    if (op && may_be_partial(op) && op->kind != OP_GROW)
        for (uint32_t s = op->first; s < op->first + op->n; s++)
            n += state[s] != found[s] && model.owner[s] == c && reached(op, s, found[s]);
    return n;
}

static uint32_t *base_of(const struct era *e)
{
    uint32_t *state = malloc(SECTORS_MAX * sizeof *state);

    memcpy(state, e->base, SECTORS_MAX * sizeof *state);
    return state;
}

enum { ANY_SIZE = 0 };

static struct fits find_fits(const struct era *e, int c, const uint32_t *found, uint32_t sectors)
{
    struct fits f = {.fit = calloc(e->nops[c] + 1, sizeof *f.fit), .least_wrong = SIZE_MAX};
    uint32_t *state = base_of(e), size = e->base_sectors;
    size_t wrong = differences(state, found, c, 0, SECTORS_MAX);

    for (size_t p = 0; p <= e->nops[c]; p++) {
        const struct sim_op *next = p < e->nops[c] ? &e->ops[c][p] : NULL;
        size_t wrong_here = wrong - count_reached(state, found, c, next);
        f.fit[p] = wrong_here == 0 && (c != 0 || size == sectors || sectors == ANY_SIZE);
        if (wrong_here < f.least_wrong) {
            f.least_wrong = wrong_here;
            f.best = p;
        }
        if (next && next->kind == OP_GROW) {
            size = next->n;
        } else if (next) {
            wrong -= differences(state, found, c, next->first, next->n);
            apply(state, next);
            wrong += differences(state, found, c, next->first, next->n);
        }
    }
    free(state);
    return f;
}

/* A sector of the client that differs after its first `n` operations. */
static uint32_t example(const struct era *e, int c, const uint32_t *found, size_t n)
{
    uint32_t *state = base_of(e), s = 0;
    const struct sim_op *next = n < e->nops[c] ? &e->ops[c][n] : NULL;

    for (size_t p = 0; p < n; p++)
        apply(state, &e->ops[c][p]);
    while (s < SECTORS_MAX - 1 &&
           (model.owner[s] != c || state[s] == found[s] || reached(next, s, found[s])))
        s++;
    free(state);
    return s;
}

/* Whoever attached later found so much of the client's operations, or as much as makes no
 * difference. */
static bool was_found(const struct era *e, unsigned c, size_t completed, uint32_t sectors)
{
    struct fits f = find_fits(e, (int)c, e->found, sectors);
    bool good = false;

    for (size_t p = completed; p <= e->nops[c]; p++)
        good = good || f.fit[p];
    free(f.fit);
    return good;
}

bool era_cut_off(const struct era *e)
{
    bool all = true;

    for (unsigned c = 0; c < model_clients && e->on_disk && e->found; c++)
        all = all && was_found(e, c, e->disk_floor[c], ANY_SIZE);
    return !all;
}

void era_fence(struct era *e)
{
    for (; e && !e->fenced; e = e->before)
        e->fenced = ++model.ticks;
}

/* Discards do not count: of what is zero they are no news. */
static void judge_fenced(const struct era *e, const size_t completed[CLIENTS_MAX])
{
    for (unsigned c = 0; c < model_clients && e->fenced; c++)
        for (size_t p = completed[c]; p > 0 && e->ops[c][p - 1].began > e->fenced; p--)
            if (e->ops[c][p - 1].kind == OP_PUT && !e->ops[c][p - 1].failed)
                sim_fail("epoch %" PRIu64 " of host %d was told that its flush succeeded, with "
                         "what client %u wrote after a rollback",
                         e->epoch, e->host, c);
}

void era_flushed(struct era *e, const size_t completed[CLIENTS_MAX], bool to_bucket)
{
    if (to_bucket)
        judge_fenced(e, completed);
    for (unsigned c = 0; c < model_clients; c++) {
        if (to_bucket)
            e->bucket_floor[c] = MAX(e->bucket_floor[c], completed[c]);
        e->disk_floor[c] = MAX(e->disk_floor[c], completed[c]);
        if (to_bucket && e->found && !was_found(e, c, completed[c], e->found_sectors))
            sim_fail("two writers: epoch %" PRIu64 " of host %d was told that its flush succeeded, "
                     "with %zu operations of client %u, but who attached later did not find them",
                     e->epoch, e->host, completed[c], c);
    }
    e->on_disk = true;
    e->in_bucket = e->in_bucket || to_bucket;
}

/* How many of client a's operations had ended before the last of b's first `n` began. */
static size_t ended_before(const struct era *e, unsigned a, unsigned b, size_t n)
{
    uint64_t began = n > 0 ? e->ops[b][n - 1].began : 0;
    size_t ended = 0;

    while (ended < e->nops[a] && e->ops[a][ended].ended && e->ops[a][ended].ended < began)
        ended++;
    return ended;
}

/* The least numbers that fit and contradict nobody's; false: there are none. */
static bool consistent(const struct era *e, const struct fits fits[CLIENTS_MAX],
                       const size_t floor[CLIENTS_MAX], const uint32_t *found, char why[256])
{
    size_t at[CLIENTS_MAX];
    bool moved = true;

    memcpy(at, floor, sizeof at);
    while (moved) {
        moved = false;
        for (unsigned c = 0; c < model_clients; c++) {
            size_t least = at[c];
            for (unsigned b = 0; b < model_clients; b++)
                least = MAX(least, b == c ? 0 : ended_before(e, c, b, at[b]));
            while (least <= e->nops[c] && !fits[c].fit[least])
                least++;
            if (least > e->nops[c]) {
                (void)snprintf(
                    why, 256,
                    "client %u: none of operations %zu (at least) to %zu gives what was found; "
                    "at best %zu of its sectors differ, one is %u",
                    c, at[c], e->nops[c], fits[c].least_wrong,
                    example(e, (int)c, found, fits[c].best));
                return false;
            }
            moved = moved || least != at[c];
            at[c] = least;
        }
    }
    return true;
}

static void supersede(struct era *e, const uint32_t *found, uint32_t sectors)
{
    free(e->found);
    e->found = calloc(SECTORS_MAX, sizeof *e->found);
    memcpy(e->found, found, sectors * sizeof *found);
    e->found_sectors = sectors;
}

struct era *era_instant(struct era *e, const uint32_t *found, uint32_t sectors,
                        enum floor_kind floor, bool take_over, char why[256])
{
    char why_before[256];
    struct era *before = NULL;
    struct fits fits[CLIENTS_MAX] = {0};

    for (unsigned c = 0; c < model_clients; c++)
        fits[c] = find_fits(e, (int)c, found, sectors);
    bool good =
        consistent(e, fits, floor == FLOOR_BUCKET ? e->bucket_floor : e->disk_floor, found, why);
    bool may_be_before =
        !e->sure && e->before && !(floor == FLOOR_BUCKET ? e->in_bucket : e->on_disk);
    if (take_over)
        supersede(e, found, sectors);
    if (!good && may_be_before)
        before = era_instant(e->before, found, sectors, floor, take_over, why_before);
    for (unsigned c = 0; c < model_clients; c++)
        free(fits[c].fit);
    return good ? e : before;
}

static bool is_instant(const struct era *e, const size_t floor[CLIENTS_MAX], const uint32_t *found,
                       uint32_t sectors, char why[256])
{
    struct fits fits[CLIENTS_MAX] = {0};

    for (unsigned c = 0; c < model_clients; c++)
        fits[c] = find_fits(e, (int)c, found, sectors);
    bool good = consistent(e, fits, floor, found, why);
    for (unsigned c = 0; c < model_clients; c++)
        free(fits[c].fit);
    return good;
}

static const size_t no_floor[CLIENTS_MAX];

bool era_ever(const struct era *e, const uint32_t *found, uint32_t sectors, char why[256])
{
    bool good = false;

    for (; e && !good; e = e->before)
        good = is_instant(e, no_floor, found, sectors, why);
    return good;
}

/* ------------------------------------------------------------------ since a moment */

struct era_mark {
    const struct era *era;
    size_t floor[CLIENTS_MAX];
    struct era_mark *before; /* NULL, or what it may be as well */
};

struct era_mark *era_mark(const struct era *e)
{
    struct era_mark *m = calloc(1, sizeof *m);

    m->era = e;
    memcpy(m->floor, e->bucket_floor, sizeof m->floor);
    if (!e->sure && !e->in_bucket && e->before)
        m->before = era_mark(e->before);
    return m;
}

bool era_since(const struct era *e, const struct era_mark *mark, const uint32_t *found,
               uint32_t sectors, char why[256])
{
    bool good = false;

    for (; e != mark->era && !good; e = e->before)
        good = is_instant(e, no_floor, found, sectors, why);
    for (; mark && !good; mark = mark->before)
        good = is_instant(mark->era, mark->floor, found, sectors, why);
    return good;
}

/* ------------------------------------------------------------------ a write cache */

static bool may_hold(const struct era *e, uint32_t s, uint32_t generation)
{
    int c = model.owner[s];
    uint32_t now = e->base[s];
    size_t p = 0;

    for (; p < e->disk_floor[c]; p++)
        if (changes(&e->ops[c][p], s))
            now = leaves(&e->ops[c][p], s);
    if (now == generation)
        return true;
    for (; p < e->nops[c]; p++)
        if (changes(&e->ops[c][p], s) && leaves(&e->ops[c][p], s) == generation)
            return true;
    return !e->sure && e->before && !e->on_disk && may_hold(e->before, s, generation);
}

/* … and the size: what it was at the floor, or became later. */
static bool may_be_of_size(const struct era *e, uint32_t sectors)
{
    uint32_t now = e->base_sectors;
    size_t p = 0;

    for (; p < e->disk_floor[0]; p++)
        if (e->ops[0][p].kind == OP_GROW)
            now = e->ops[0][p].n;
    bool good = now == sectors;
    for (; p < e->nops[0] && !good; p++)
        good = e->ops[0][p].kind == OP_GROW && e->ops[0][p].n == sectors;
    return good || (!e->sure && e->before && !e->on_disk && may_be_of_size(e->before, sectors));
}

bool era_write_cache(const struct era *e, const uint32_t *found, uint32_t sectors, char why[256])
{
    if (!may_be_of_size(e, sectors)) {
        (void)snprintf(why, 256, "%u sectors, which it had not at the last flush, nor later",
                       sectors);
        return false;
    }
    for (uint32_t s = 0; s < sectors; s++)
        if (!may_hold(e, s, found[s])) {
            (void)snprintf(
                why, 256,
                "sector %u of client %d: generation %u, which it had not at the last flush, "
                "nor later",
                s, model.owner[s], found[s]);
            return false;
        }
    return true;
}
