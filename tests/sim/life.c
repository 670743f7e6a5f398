#include "life.h"
#include "bucket.h"
#include "clients.h"
#include "counts.h"
#include "lineage.h"
#include "sched.h"

#include "../../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum { PIECE = 256 * 1024, PATIENCE_TRIES = 200 };

struct run run;
struct sim_volume sim_volumes[VOLUMES];
static struct life *lives[MACHINES_MAX]; /* by machine */

int sim_number(const struct sim_volume *v)
{
    return (int)(v - sim_volumes);
}

void run_say(const char *fmt, ...)
{
    va_list ap;

    if (!run.verbose)
        return;
    va_start(ap, fmt);
    fprintf(stderr, "%12.6f ", (double)sched_now_us() / 1e6);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* ------------------------------------------------------------------ an error */

static enum volume_state state_of(struct life *l)
{
    struct volume_status st;

    volume_get_status(l->volume, &st);
    return st.state;
}

/* Somebody was told of an error: was there reason for one? */
void life_judge_error(struct life *l, const char *what, int r)
{
    enum volume_state state = state_of(l);

    run_say("host %d: %s: %s", l->host->number, what, strerror(-r));
    if (state == VOLUME_FENCED && l->host->volume->newest == l->era)
        run_say("host %d: fenced by an attachment that is not complete", l->host->number);
    if (state == VOLUME_FENCED && bucket_fencer(sim_number(l->host->volume)) == l->machine)
        sim_fail("host %d: %s: fenced by nobody", l->host->number, what);
    if (state == VOLUME_FENCED || l->interrupted)
        return;
    if (r == -ETIMEDOUT && l->config.timeout_ms != STORE_FOREVER)
        return;
    if (run.disk_faults && (r == -EIO || r == -ENOSPC))
        return;
    if (run.rot && r == -EIO)
        return;
    sim_fail("host %d: %s: %s, without a reason (state %d)", l->host->number, what, strerror(-r),
             (int)state);
}

/* ------------------------------------------------------------------ what was found */

/* What is in PIECE bytes from sector `at` on. */
static int read_piece(struct life *l, uint32_t *found, uint32_t at, uint32_t sectors)
{
    size_t len = MIN((size_t)PIECE, (size_t)(sectors - at) * SECTOR_BYTES);
    uint8_t *buf = aligned_alloc(4096, PIECE);
    int r = volume_read(l->volume, buf, len, (uint64_t)at * SECTOR_BYTES, true);

    for (uint32_t i = 0; r == 0 && i < len / SECTOR_BYTES; i++) {
        found[at + i] = model_read_stamp(buf + (size_t)i * SECTOR_BYTES, at + i);
        if (found[at + i] == UINT32_MAX)
            sim_fail("host %d: sector %u has bytes that nobody wrote there", l->host->number,
                     at + i);
    }
    free(buf);
    return r;
}

/* Reads it all; false: it cannot be read. */
static bool read_all(struct life *l, uint32_t *found, uint32_t sectors)
{
    bool good = true;

    for (uint32_t at = 0; at < sectors && good; at += PIECE / SECTOR_BYTES) {
        int r = -1;
        for (int tries = 0; r < 0 && tries < PATIENCE_TRIES; tries++) {
            r = read_piece(l, found, at, sectors);
            if (r < 0)
                life_judge_error(l, "reading it all", r);
        }
        good = r == 0;
    }
    return good;
}

/* The cache directory decides what this attachment must have found. */
static void judge(struct life *l, const uint32_t *found, uint32_t sectors, uint64_t epoch)
{
    struct host *h = l->host;
    char why[256] = "";
    bool own = h->local && !l->config.discard_local && h->volume->newest == h->last;
    bool good;

    if (h->local && h->last && !own && !l->config.discard_local && era_cut_off(h->last))
        sim_fail("host %d, epoch %" PRIu64 ": what was flushed to its disk only is given up, and "
                 "nobody was asked",
                 h->number, epoch);
    if (h->volume->repaired)
        good = era_ever(h->volume->newest, found, sectors, why);
    else if (own && h->ending == CRASHED && h->last->write_cache)
        good = era_write_cache(h->last, found, sectors, why);
    else
        good = era_instant(h->volume->newest, found, sectors, own ? FLOOR_DISK : FLOOR_BUCKET, !own,
                           why);
    if (!good)
        sim_fail("host %d, epoch %" PRIu64 " (%s): this was never the volume, or is too old: %s",
                 h->number, epoch, own ? "with its cache" : "from the bucket", why);
    l->era = era_new(h->volume->newest, h->number, epoch, found, sectors);
    l->era->sure = !own;
    if (own)
        lineage_blur(h->volume);
    l->era->write_cache = l->config.sync == SYNC_CACHE || (own && h->last->write_cache);
    h->local = own || l->config.sync == SYNC_CACHE;
    h->forked = h->index_lost = h->wal_lost = false;
    h->last = l->era;
    if (h->volume->newest->epoch < epoch)
        h->volume->newest = l->era;
}

/* Holes are zeros, and what is not zero is counted as allocated. */
static void check_holes(struct life *l, const uint32_t *found, uint32_t sectors)
{
    uint64_t size = (uint64_t)sectors * SECTOR_BYTES, hole = 0, data, blocks = 0;

    while (hole < size) {
        int r = volume_seek(l->volume, hole, true, &data);
        if (r < 0 && r != -ENXIO)
            return;
        data = r == -ENXIO ? size : data;
        for (uint64_t s = hole / SECTOR_BYTES; s < data / SECTOR_BYTES; s++)
            if (found[s])
                sim_fail("host %d: sector %" PRIu64 " is said to be in a hole, and is not zero",
                         l->host->number, s);
        if (data == size || volume_seek(l->volume, data, false, &hole) < 0)
            break;
    }
    for (uint32_t s = 0; s < sectors; s += 8)
        for (uint32_t i = s; i < MIN(s + 8, sectors); i++)
            if (found[i]) {
                blocks++;
                break;
            }
    if (volume_allocated_bytes(l->volume) < blocks * 4096)
        sim_fail("host %d: %" PRIu64 " blocks are not zero, but only %" PRIu64 " bytes allocated",
                 l->host->number, blocks, volume_allocated_bytes(l->volume));
}

static bool verify(struct life *l)
{
    uint32_t sectors = (uint32_t)(volume_size_bytes(l->volume) / SECTOR_BYTES);
    uint32_t *found = calloc(SECTORS_MAX, sizeof *found);
    struct volume_status st;
    bool good = read_all(l, found, sectors);

    volume_get_status(l->volume, &st);
    if (good && l->host->volume->newest->epoch > st.epoch)
        good = false; /* a later one was quicker: nobody works on this one any more */
    if (good)
        judge(l, found, sectors, st.epoch);
    if (good)
        check_holes(l, found, sectors);
    free(found);
    return good;
}

/* ------------------------------------------------------------------ the life */

void life_end(struct life *l, enum death death)
{
    l->dying = true;
    l->death = death;
    sched_pause(l->machine, sched_now_us() + INT64_C(3600000000));
}

/* Its claim is the newest. */
static bool is_newest(const struct host *h)
{
    const struct life *l = lives[bucket_claimer(sim_number(h->volume))];

    return l && l->host == h; /* no life's: a rollback's */
}

static void judge_open(struct life *l)
{
    bool weather_bad = !run.calm;

    run_say("host %d: opening: %s", l->host->number, strerror(-l->opened));
    if (l->opened == -EIO && l->host->local && l->host->index_lost)
        l->host->forked = true;
    else if ((l->opened == -EIO || l->opened == -ESTALE) && l->host->wal_lost)
        l->host->forked = true;
    else if (l->opened == -ESTALE && is_newest(l->host))
        sim_fail("host %d: refused as a fork, though nobody else attached since", l->host->number);
    else if (l->opened == -ESTALE && l->host->local)
        l->host->forked = true;
    else if (l->opened == -ESTALE)
        sim_fail("host %d: refused as a fork, though it has nothing of its own", l->host->number);
    else if (run.rot && l->opened == -EIO)
        l->host->forked = true; /* what is lost has to be given up */
    else if (run.disk_faults && (l->opened == -EIO || l->opened == -ENOSPC))
        return;
    else if (l->opened == -EBADMSG)
        sim_fail("host %d: the bucket or the cache is called damaged", l->host->number);
    else if (l->opened == -EIO || (!weather_bad && l->opened != -EBUSY))
        sim_fail("host %d: cannot attach: %s", l->host->number, strerror(-l->opened));
}

/* A fork was refused: what saving it would read is the volume as it was on this host, unless it is
 * reclaimed. */
static void judge_fork(struct life *l)
{
    struct host *h = l->host;
    uint32_t *found = calloc(SECTORS_MAX, sizeof *found);
    uint32_t sectors = (uint32_t)(volume_size_bytes(l->volume) / SECTOR_BYTES);
    char why[256] = "";
    bool good = true;
    int r = 0;

    for (uint32_t at = 0; at < sectors && r == 0; at += PIECE / SECTOR_BYTES) {
        r = read_piece(l, found, at, sectors);
        if (r < 0)
            run_say("host %d: reading the fork: %s", h->number, strerror(-r));
    }
    if (r == 0 && h->volume->repaired)
        good = era_ever(h->last, found, sectors, why);
    else if (r == 0 && h->ending == CRASHED && h->last->write_cache)
        good = era_write_cache(h->last, found, sectors, why);
    else if (r == 0)
        good = era_instant(h->last, found, sectors, FLOOR_DISK, false, why) != NULL;
    if (!good)
        sim_fail("host %d: its fork is not what the volume was here: %s", h->number, why);
    else if (r == 0)
        counts_add(COUNT_FORKS_READ);
    free(found);
}

static void look_at_fork(struct life *l)
{
    counts_add(COUNT_FORKS);
    l->doing = "looking at its fork";
    l->config.read_only = l->config.fork = true;
    l->store = bucket_store(sim_number(l->host->volume));
    int r = volume_open(l->store, &l->config, &l->volume);
    run_say("host %d: opening the fork: %s", l->host->number, strerror(-r));
    if (r == -ENODATA || r == -EINVAL)
        sim_fail("host %d: refused as a fork, and is none", l->host->number);
    if (r == 0) {
        judge_fork(l);
        volume_close(l->volume, true);
    }
    store_free(l->store);
}

/* Everything is in the bucket, and nobody does anything. */
static void check_quiet(struct life *l)
{
    if (volume_drain(l->volume) < 0)
        return;
    sched_sleep_us(INT64_C(1000000000)); /* a checkpoint may follow, and a sweep */
    uint64_t before = bucket_requests();
    sched_sleep_us(INT64_C(36000000000));
    if (bucket_requests() != before)
        sim_fail("%" PRIu64 " requests in ten idle hours", bucket_requests() - before);
}

/* As the daemon does at a second signal. */
void life_stop(struct life *l)
{
    l->stopping = true;
    if (l->closing)
        store_stop(l->store);
    else
        volume_stop(l->volume);
    l->stopping = false;
}

/* As the daemon does: nothing may be left to save once nobody can be told any more to give it up.
 */
static void close_it(struct life *l)
{
    size_t completed[CLIENTS_MAX];

    if (l->era)
        era_completed(l->era, completed);
    l->doing = "saving";
    if (sim_chance(1, 3))
        l->syncs_left = 1 + (unsigned)sim_below(sim_chance(1, 2) ? 4 : 20);
    int saved = l->keep_local ? 0 : volume_drain(l->volume);
    if (saved < 0)
        life_judge_error(l, l->doing, saved);
    l->closing = true;
    while (l->stopping)
        sched_sleep_us(1000);
    l->doing = "closing";
    l->closed = volume_close(l->volume, l->keep_local || saved < 0);
    l->closed = saved < 0 ? saved : l->closed;
    run_say("host %d: closed%s: %s", l->host->number, l->keep_local ? ", keeping local data" : "",
            strerror(-l->closed));
    if (l->closed == 0 && l->era)
        era_flushed(l->era, completed, !l->keep_local);
    while (l->stopping)
        sched_sleep_us(1000);
    store_free(l->store);
}

/* Before anything is read: so nothing that the cache holds is news, which a flush would sync. */
static bool flush_at_once(struct life *l)
{
    l->doing = "flushing at once";
    int r = volume_flush(l->volume, true);
    if (r < 0)
        life_judge_error(l, l->doing, r);
    return r == 0;
}

/* That flush promised what was found; it is put to the test. */
static void hold_it_to_that(struct life *l)
{
    size_t completed[CLIENTS_MAX] = {0};

    era_flushed(l->era, completed, l->config.sync == SYNC_BUCKET);
    if (!l->last && sim_chance(3, 4))
        life_end(l, DEATH_CUT);
}

static void *life_main(void *arg)
{
    struct life *l = arg;

    l->doing = "opening";
    l->store = bucket_store(sim_number(l->host->volume));
    l->opened = volume_open(l->store, &l->config, &l->volume);
    if (l->opened < 0) {
        judge_open(l);
        store_free(l->store);
        if (l->opened == -ESTALE && sim_chance(3, 4))
            look_at_fork(l);
        l->over = true;
        return NULL;
    }
    run_say("host %d: attached, sync=%s", l->host->number,
            l->config.sync == SYNC_CACHE ? "cache" : "bucket");
    unsigned rare = l->host->on_top ? 1 : l->host->ending == CRASHED ? 2 : 10;
    bool flushed = sim_chance(1, rare) && flush_at_once(l);
    l->host->on_top = false;
    l->doing = "reading it all";
    l->verified = verify(l);
    if (l->verified && flushed)
        hold_it_to_that(l);
    l->doing = "working";
    if (sim_chance(1, 3))
        l->syncs_left = 1 + (unsigned)sim_below(100);
    if (l->verified)
        clients_work(l);
    if (l->last)
        check_quiet(l);
    close_it(l);
    l->over = true;
    return NULL;
}

struct life *life_start(struct host *host, const struct volume_config *config, unsigned operations,
                        bool keep_local)
{
    struct life *l = calloc(1, sizeof *l);

    *l = (struct life){.host = host,
                       .machine = sched_new_machine(),
                       .config = *config,
                       .operations = operations,
                       .keep_local = keep_local,
                       .opened = 1,
                       .closed = 1};
    host->life = lives[l->machine] = l;
    host->volume->lives++;
    if (sim_chance(1, host->ending == FRESH ? 2 : 4))
        l->syncs_left = 1 + (unsigned)sim_below(20);
    l->task = sched_spawn(l->machine, life_main, l);
    return l;
}

void life_on_sync(bool names)
{
    struct life *l = lives[sched_machine()];

    if (l && names && sim_chance(1, 20))
        l->syncs_left = 1;
    if (l && !l->over && !l->last && l->syncs_left > 0 && --l->syncs_left == 0)
        life_end(l, DEATH_ANY);
}

bool life_may_die(const struct host *h)
{
    return !life_unknown(h) || !bucket_uploaded(h->life->machine);
}

bool life_unknown(const struct host *h)
{
    bool read = h->life && (h->life->verified || h->life->over);

    return !read && h->local && h->last && h->last->write_cache;
}

void life_forget(struct life *l, bool crashed)
{
    struct host *h = l->host;

    h->life = NULL;
    if (crashed) {
        h->ending = CRASHED;
        h->local =
            h->local || (l->closing && l->era); /* it may have recorded what it could not upload */
    } else if (l->opened == 0 && l->verified)
        h->ending = l->closed == 0 ? (l->keep_local ? KEPT_LOCAL : DRAINED) : CRASHED;
    if (!crashed && l->opened == 0 && l->verified) {
        h->local = h->ending != DRAINED;
    }
}
