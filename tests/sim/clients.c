#include "clients.h"
#include "ambush.h"
#include "disk.h"
#include "lineage.h"
#include "sched.h"

#include "../../store/scope.h"

#include <inttypes.h>
#include <string.h>

struct client {
    struct life *life;
    struct party *party;
    int number;
    uint32_t *state; /* of its sectors, as they must be */
    uint32_t *old;   /* those of what it does now, as they were before */
    uint32_t last;   /* where it wrote */
    bool again;      /* it writes there */
    bool near;       /* or elsewhere in that chunk */
    bool whole_blocks;
    bool gone; /* it does nothing any more */
};

/* All of a life's. */
struct party {
    struct client clients[CLIENTS_MAX];
    uint32_t below;   /* 0, or the size that the volume is being shrunk to: nobody may write */
    unsigned at_work; /* do not know of it yet */
    unsigned waiting;
    bool over;   /* the shrinking failed */
    bool failed; /* an operation of somebody, who does nothing any more */
};

/* A run of the client's own sectors, of at most `most`. */
static uint32_t choose(struct client *c, uint32_t sectors, uint32_t most, uint32_t *ret_n)
{
    static uint32_t hot;
    uint32_t first = 0, n = 0;
    uint64_t chunk; /* bytes */
    enum ambush ambush = ambush_now(&chunk);

    for (int tries = 0; tries < 100; tries++) {
        first = (uint32_t)sim_below(sectors);
        if (sim_chance(1, 3)) /* where somebody is */
            first = (hot + (uint32_t)sim_below(256)) % sectors;
        if (c->again || sim_chance(1, 6)) /* perhaps a commit is under way */
            first = MIN(c->last, sectors - 1);
        if (ambush != AMBUSH_NONE)
            first = (uint32_t)(chunk / SECTOR_BYTES + sim_below(512)) % sectors;
        if (c->near) {
            first = c->last / 512 * 512 + (uint32_t)sim_below(512);
            first = MIN(first, sectors - 1);
        }
        if (c->whole_blocks || sim_chance(1, 3))
            first = first / 8 * 8;
        if (model_owner(first) == c->number)
            break;
    }
    if (model_owner(first) != c->number)
        return 0;
    hot = first;
    while (n < most && first + n < sectors && model_owner(first + n) == c->number)
        n++;
    *ret_n = sim_chance(1, 3) ? n : 1 + (uint32_t)sim_below(n);
    if (c->whole_blocks && n >= 8)
        *ret_n = ROUND_UP(*ret_n, 8) <= n ? ROUND_UP(*ret_n, 8) : n / 8 * 8;
    return first;
}

static void keep_old(struct client *c, uint32_t first, uint32_t n)
{
    memcpy(c->old + first, c->state + first, n * sizeof *c->old);
}

/* At once, if that is possible. */
static int write_somehow(struct life *l, const uint8_t *buf, size_t len, uint64_t at)
{
    int r = sim_chance(1, 2) ? volume_write(l->volume, buf, len, at, false) : -EAGAIN;

    return r == -EAGAIN ? volume_write(l->volume, buf, len, at, true) : r;
}

static int do_put(struct client *c, uint32_t sectors)
{
    struct life *l = c->life;
    uint32_t n = 0, most = sim_chance(1, 4) ? 2048 : 64, first = choose(c, sectors, most, &n);

    if (n == 0)
        return 0;
    keep_old(c, first, n);
    uint8_t *buf = aligned_alloc(4096, ROUND_UP((size_t)n * SECTOR_BYTES, (size_t)4096));
    uint32_t generation = era_begin(l->era, c->number, OP_PUT, first, n)->generation;
    for (uint32_t i = 0; i < n; i++) {
        model_stamp(buf + (size_t)i * SECTOR_BYTES, first + i, generation);
        c->state[first + i] = generation;
    }
    c->last = first;
    int r = write_somehow(l, buf, (size_t)n * SECTOR_BYTES, (uint64_t)first * SECTOR_BYTES);
    if (r == 0)
        era_end(l->era, c->number);
    free(buf);
    return r;
}

static int do_clear(struct client *c, uint32_t sectors)
{
    struct life *l = c->life;
    uint32_t n = 0, first = choose(c, sectors, sim_chance(1, 4) ? SECTORS_MAX : 512, &n);

    if (n == 0)
        return 0;
    keep_old(c, first, n);
    era_begin(l->era, c->number, n > 2048 ? OP_CLEAR_LOOSELY : OP_CLEAR, first, n);
    memset(c->state + first, 0, n * sizeof *c->state);
    int r = volume_discard(l->volume, (uint64_t)first * SECTOR_BYTES, (uint64_t)n * SECTOR_BYTES);
    if (r == 0)
        era_end(l->era, c->number);
    return r;
}

static int do_read(struct client *c, uint32_t sectors)
{
    struct life *l = c->life;
    uint32_t n = 0, first = choose(c, sectors, 2048, &n);
    if (n > 0 && sim_chance(1, 3)) /* and what is others' */
        n = MIN(sectors - first, 2048);
    uint8_t *buf = aligned_alloc(4096, ROUND_UP((size_t)n * SECTOR_BYTES + 1, (size_t)4096));
    uint64_t at = (uint64_t)first * SECTOR_BYTES;
    int r = -EAGAIN;

    if (sim_chance(1, 2))
        r = volume_read(l->volume, buf, (size_t)n * SECTOR_BYTES, at, false);
    if (r == -EAGAIN)
        r = volume_read(l->volume, buf, (size_t)n * SECTOR_BYTES, at, true);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        uint32_t got = model_read_stamp(buf + (size_t)i * SECTOR_BYTES, first + i);
        if (model_owner(first + i) == c->number && got != c->state[first + i])
            sim_fail("host %d, epoch %" PRIu64
                     ": sector %u reads as generation %u, but %u was written",
                     l->host->number, l->era->epoch, first + i, got, c->state[first + i]);
    }
    free(buf);
    return r;
}

/* What a failed operation did is what is read after it, and nothing else from then on. False: that
 * cannot be told. */
static bool settle(struct client *c)
{
    struct life *l = c->life;
    const struct sim_op *op = &l->era->ops[c->number][l->era->nops[c->number] - 1];
    size_t len = (size_t)op->n * SECTOR_BYTES;
    int r = -EIO;

    if (op->kind == OP_GROW)
        return false;
    uint8_t *buf = aligned_alloc(4096, ROUND_UP(len, (size_t)4096));
    for (int tries = 0; tries < 5 && r < 0; tries++)
        r = volume_read(l->volume, buf, len, (uint64_t)op->first * SECTOR_BYTES, true);
    for (uint32_t s = op->first; s < op->first + op->n && r == 0; s++) {
        uint32_t got = model_read_stamp(buf + (size_t)(s - op->first) * SECTOR_BYTES, s);
        if (got != op->generation && got != c->old[s])
            sim_fail("host %d, epoch %" PRIu64
                     ": sector %u reads as generation %u after a failure; it was %u, or became %u",
                     l->host->number, l->era->epoch, s, got, c->old[s], op->generation);
        c->state[s] = got;
    }
    free(buf);
    if (r == 0)
        era_settle(l->era, c->number, c->state);
    return r == 0;
}

/* At once, if that is possible. */
static int flush_somehow(struct volume *v)
{
    int r = sim_chance(1, 2) ? volume_flush(v, false) : -EAGAIN;

    return r == -EAGAIN ? volume_flush(v, true) : r;
}

static int flush(struct client *c, bool drain)
{
    struct life *l = c->life;
    size_t completed[CLIENTS_MAX];

    era_completed(l->era, completed);
    int r = drain ? volume_drain(l->volume) : flush_somehow(l->volume);
    if (r == 0)
        era_flushed(l->era, completed, drain || l->config.sync == SYNC_BUCKET);
    l->flush_failed = l->flush_failed || r < 0;
    return r;
}

/* In one chunk, of which little is here, it writes, flushes, writes or clears, and flushes: what
 * the cache knows of a chunk already must not be taken for all of it. */
static int flush_twice(struct client *c)
{
    uint32_t sectors = (uint32_t)(volume_size_bytes(c->life->volume) / SECTOR_BYTES);

    int r = flush(c, true);

    sched_sleep_us((int64_t)sim_below(2000000)); /* and it is in the index */
    ambush_evict(c->life->volume);
    c->whole_blocks = true;
    if (r == 0)
        r = do_put(c, sectors);
    if (r == 0)
        r = flush(c, false);
    c->near = true;
    if (r == 0)
        r = sim_chance(2, 3) ? do_clear(c, sectors) : do_put(c, sectors);
    c->near = c->whole_blocks = false;
    return r == 0 ? flush(c, false) : r;
}

/* A sync fails, of the slots or of the index's log, and the next flush says all the same that all
 * is well? */
static int flush_after_failure(struct client *c)
{
    struct life *l = c->life;
    int r = do_put(c, (uint32_t)(volume_size_bytes(l->volume) / SECTOR_BYTES));

    if (r < 0)
        return r;
    disk_fail_next_sync(l->config.cache_dir, sim_chance(1, 2) ? "slots" : "index.db-wal");
    r = flush(c, false);
    disk_fail_next_sync(NULL, NULL);
    if (r == 0) /* it took none, or somebody else did */
        return 0;
    r = flush(c, false);
    if (r == 0)
        life_end(l, DEATH_CUT);
    return r;
}

static void recover(struct client *c, int error)
{
    struct life *l = c->life;

    life_judge_error(l, "a client", error);
    if (!c->party->over && era_failed(l->era, c->number) && !settle(c)) {
        c->party->failed = true;
        c->gone = true;
    } /* else a flush: the next one has to hold what it did not */
}

static void *drain_main(void *volume)
{
    (void)volume_drain(volume);
    return NULL;
}

/* A write fails half-way, where blocks are in a commit that is under way, or was. What is there
 * then, old or new, is what stays. */
static int write_by_half(struct client *c)
{
    struct life *l = c->life;
    uint32_t sectors = (uint32_t)(volume_size_bytes(l->volume) / SECTOR_BYTES);
    int r = do_put(c, sectors);

    if (r < 0)
        return r;
    struct task *drain = sched_spawn(sched_machine(), drain_main, l->volume);
    if (sim_chance(1, 4))
        sched_sleep_us((int64_t)sim_below(2000000));
    else
        ambush_await_commit(l->volume, (uint64_t)c->last * SECTOR_BYTES);
    disk_fail_a_write(l->config.cache_dir, (unsigned)sim_below(3));
    c->again = true;
    r = do_put(c, sectors);
    c->again = false;
    disk_fail_a_write(NULL, 0);
    sched_join(drain);
    if (r < 0)
        recover(c, r);
    if (c->gone || c->party->over)
        return 0;
    r = flush(c, true);
    sched_sleep_us((int64_t)sim_below(2000000)); /* and it is in the index */
    ambush_evict(l->volume);
    c->again = true;
    if (r == 0)
        r = do_read(c, sectors);
    c->again = false;
    return r;
}

/* The promise is put to the test at once: sooner, where disks are bad. Or it dies with what was
 * written on top of it, which is there, and not synced. */
static int test_promise(struct client *c, bool drain)
{
    struct life *l = c->life;
    int r = 0;

    if (l->last)
        return 0;
    if (ambush_met() && sim_chance(1, 2))
        life_end(l, DEATH_ANY);
    if (sim_chance(1, drain || run.disk_faults ? 10 : 40))
        l->syncs_left = 1 + (unsigned)sim_below(3);
    if (run.disk_faults && sim_chance(1, l->flush_failed ? 2 : 8))
        life_end(l, DEATH_CUT);
    if (l->config.sync == SYNC_CACHE && !drain && !c->party->below && sim_chance(1, 30)) {
        c->again = true;
        r = do_put(c, (uint32_t)(volume_size_bytes(l->volume) / SECTOR_BYTES));
        c->again = false;
        l->host->on_top = true;
        life_end(l, DEATH_KILL);
    } else if (l->config.sync == SYNC_CACHE && !drain && !c->party->below && sim_chance(1, 15)) {
        r = flush_twice(c);
        if (r == 0)
            life_end(l, DEATH_ANY);
    }
    return r;
}

static int do_flush(struct client *c)
{
    const struct life *l = c->life;

    if (run.disk_faults && l->config.sync == SYNC_CACHE && !l->last && !c->party->below &&
        sim_chance(1, 5))
        return flush_after_failure(c);
    if (run.disk_faults && !c->party->below && sim_chance(1, 4))
        return write_by_half(c);
    bool drain = sim_chance(1, 4);
    int r = flush(c, drain);

    return r < 0 ? r : test_promise(c, drain);
}

static int do_grow(struct client *c, uint32_t sectors)
{
    struct life *l = c->life;
    uint32_t size = sectors + 8 * (uint32_t)sim_below(200);

    if (c->number != 0 || size > SECTORS_MAX)
        return 0;
    era_begin(l->era, 0, OP_GROW, 0, size);
    int r = volume_resize(l->volume, (uint64_t)size * SECTOR_BYTES);
    if (r == 0)
        era_end(l->era, 0);
    return r;
}

/* What is beyond becomes zero for everybody, chunk by chunk, before the volume is smaller. */
static void begin_shrinking(struct party *p, uint32_t from, uint32_t to)
{
    struct era *e = p->clients[0].life->era;

    for (unsigned i = 0; i < model_clients; i++)
        era_begin(e, (int)i, OP_CLEAR_LOOSELY, to, from - to);
    era_begin(e, 0, OP_GROW, 0, to);
}

/* `r`: how it went. */
static int end_shrinking(struct party *p, uint32_t from, uint32_t to, bool discarded, int r)
{
    struct era *e = p->clients[0].life->era;
    size_t completed[CLIENTS_MAX];

    for (unsigned i = 0; i < model_clients; i++) {
        if (r == -ENOTEMPTY) {
            era_cancel(e, (int)i);
        } else if (r < 0) {
            era_failed(e, (int)i);
        } else {
            era_end(e, (int)i);
            for (uint32_t s = to; !discarded && s < from; s++)
                if (p->clients[i].state[s] && model_owner(s) == (int)i)
                    sim_fail("the volume was made smaller, though there was data in sector %u", s);
            memset(p->clients[i].state + to, 0, (from - to) * sizeof(uint32_t));
        }
    }
    p->over = r < 0 && r != -ENOTEMPTY;
    if (r == 0) {
        counts_add(COUNT_SHRUNK);
        era_completed(e, completed);
        era_flushed(e, completed, true);
    }
    return r == -ENOTEMPTY ? 0 : r;
}

static int shrink(struct client *c, uint32_t from, uint32_t to)
{
    struct life *l = c->life;
    bool discard = sim_chance(3, 4);

    run_say("host %d: shrinks from %u to %u sectors", l->host->number, from, to);
    counts_add(COUNT_SHRINKS);
    begin_shrinking(c->party, from, to);
    int r = volume_shrink(l->volume, (uint64_t)to * SECTOR_BYTES, discard);
    return end_shrinking(c->party, from, to, discard, discard && r == -ENOTEMPTY ? -EPROTO : r);
}

/* The others stop writing meanwhile, as the model has no name for what they write at this moment.
 */
static int do_shrink(struct client *c, uint32_t sectors)
{
    struct party *p = c->party;
    uint32_t most = sectors - MIN(sectors, (uint32_t)(VOLUME_BYTES_MIN / SECTOR_BYTES));
    uint32_t step = sim_chance(1, 2) ? 512 : 8192;
    uint32_t less = 8 * (uint32_t)sim_below(1 + MIN(most, step) / 8);

    if (c->number != 0 || less == 0)
        return 0;
    p->below = sectors - less;
    while (p->at_work > 1)
        sched_sleep_us(100);
    /* of an operation that may be there in part the model knows as its client's last one only */
    int r = p->failed ? 0 : shrink(c, sectors, p->below);
    p->below = 0;
    while (p->waiting > 0)
        sched_sleep_us(100);
    return r;
}

/* While another one shrinks the volume. */
static void wait_for_size(struct client *c)
{
    struct party *p = c->party;

    p->at_work--;
    p->waiting++;
    while (p->below) {
        int r = sim_chance(1, 3) ? do_flush(c) : sim_chance(1, 2) ? do_read(c, p->below) : 0;
        if (r < 0) /* the one who shrinks will be told, too */
            life_judge_error(c->life, "a client, meanwhile", r);
        sched_sleep_us((int64_t)sim_below(200000));
    }
    p->at_work++;
    p->waiting--;
}

static int do_something(struct client *c)
{
    struct life *l = c->life;
    uint32_t sectors = (uint32_t)(volume_size_bytes(l->volume) / SECTOR_BYTES);
    uint64_t what = sim_below(100);
    uint64_t chunk;
    enum ambush ambush = ambush_now(&chunk);

    if (ambush == AMBUSH_WRITE)
        return sim_chance(1, 2) ? do_put(c, sectors) : do_flush(c);
    if (ambush == AMBUSH_READ)
        return do_read(c, sectors);
    if (what < 55)
        return do_put(c, sectors);
    if (what < 68)
        return do_clear(c, sectors);
    if (what < 85)
        return do_read(c, sectors);
    if (what < 93)
        return do_flush(c);
    if (what < 96) {
        int r = run.lineage && sim_chance(2, 3) ? do_shrink(c, sectors) : do_grow(c, sectors);
        if (r < 0 || sim_chance(1, 2))
            return r;
        r = do_flush(c);
        if (r == 0 && !l->last && sim_chance(1, 4)) /* a size that perhaps only this disk knows */
            life_end(l, DEATH_ANY);
        return r;
    }
    if (run.lineage && what == 96 && sim_chance(1, 2)) {
        int r = do_flush(c);
        return r == 0 ? lineage_snapshot(l) : r;
    }
    sched_sleep_us((int64_t)sim_below(sim_chance(1, 4) ? 20000000 : 200000));
    return 0;
}

static void *client_main(void *arg)
{
    struct client *c = arg;
    struct life *l = c->life;

    for (unsigned i = 0; i < l->operations && !l->interrupted && !c->party->over && !c->gone; i++) {
        if (c->party->below)
            wait_for_size(c);
        if (model_clients > 1 && sim_chance(1, 20))
            ambush_arm(l->volume);
        int r = c->party->over ? 0 : do_something(c);
        ambush_disarm();
        if (r < 0)
            recover(c, r);
    }
    c->party->at_work--;
    return NULL;
}

void clients_work(struct life *l)
{
    struct task *tasks[CLIENTS_MAX];
    struct party *p = calloc(1, sizeof *p); /* not on this stack: it may be gone before them */

    p->at_work = model_clients;
    for (unsigned i = 0; i < model_clients; i++) {
        p->clients[i] = (struct client){.life = l,
                                        .party = p,
                                        .number = (int)i,
                                        .state = malloc(SECTORS_MAX * sizeof(uint32_t)),
                                        .old = malloc(SECTORS_MAX * sizeof(uint32_t))};
        memcpy(p->clients[i].state, l->era->base, SECTORS_MAX * sizeof(uint32_t));
        tasks[i] = sched_spawn(sched_machine(), client_main, &p->clients[i]);
    }
    for (unsigned i = 0; i < model_clients; i++)
        sched_join(tasks[i]);
    for (unsigned i = 0; i < model_clients; i++) {
        free(p->clients[i].state);
        free(p->clients[i].old);
    }
    free(p);
}
