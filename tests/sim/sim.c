/*
 * The simulation: everything below FUSE, its real code, on simulated threads, time, disks and
 * network. Machines attach to one volume, work on it, are killed, lose power or their cache, are
 * stopped for a day and go on; the model says whether what is found afterwards may be. One seed is
 * one run.
 *
 *   sim [--seed N] [--count N] [--jobs N] [--first] [-v]
 *
 * Runs the seeds N, N + 1, …; prints the first line of each that fails, and how to run it again;
 * exit 1 if any does. With --first it stops at the first that fails. README.md in tests/ has what
 * is simulated and how.
 */
#include "bucket.h"
#include "disk.h"
#include "life.h"
#include "lineage.h"
#include "sched.h"
#include "watch.h"

#include "../../cache/offline.h"
#include "../../store/pin.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

#include <inttypes.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { HOSTS = 2, CLONE_HOST = 2, SEEDS_DEFAULT = 200, HUGE_PAGE = 2 << 20 };
#define SECOND INT64_C(1000000)
#define DAY    (86400 * SECOND)

static uint64_t seed;
static bool verbose;

_Noreturn void sim_fail(const char *fmt, ...)
{
    char text[600];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "sim: seed %" PRIu64 ": %s (at %.6f s)\n", seed, text,
            (double)sched_now_us() / 1e6);
    fflush(stderr);
    _exit(1);
}

/* ------------------------------------------------------------------ what a run is like */

static void choose_weather(void)
{
    static const struct weather kinds[] = {
        {.latency_us = 2000},
        {.latency_us = 50000},
        {.latency_us = 20000, .lost = 20, .answer_lost = 20, .busy = 20, .cut = 50},
        {.latency_us = 20000, .late = 50, .answer_lost = 100},
        {.latency_us = 300000,
         .lost = 100,
         .late = 20,
         .answer_lost = 100,
         .busy = 100,
         .cut = 200},
    };
    uint64_t kind = sim_below(ARRAY_SIZE(kinds));

    weather = kinds[kind];
    run.calm = kind <= 1;
    run.disk_faults = model_disks_fail = sim_chance(1, 5);
    run.alone = sim_chance(1, 4);
    run.rot = !run.disk_faults && sim_chance(1, 6);
}

/* A bad disk is bad for a while. */
static void choose_disk(const struct host *h)
{
    bool slots = sim_chance(1, 2); /* who writes can go on after that */
    unsigned rare = 10 + (unsigned)sim_below(slots ? 50 : 2000);

    if (run.disk_faults)
        disk_fail_one_in(h->dir, slots ? "slots" : NULL, sim_chance(1, 3) ? 0 : rare);
    disk_fail_syncs_one_in(run.disk_faults && sim_chance(1, 2) ? 2 + (unsigned)sim_below(20) : 0);
}

static struct volume_config choose_config(const struct host *h)
{
    struct volume_config c;

    volume_config_init(&c);
    c.cache_dir = h->dir;
    c.cache_bytes = sim_chance(1, 2) ? 1 << 20 : 4 << 20;
    c.dirty_bytes = c.cache_bytes >> sim_below(3);
    c.readahead_bytes = sim_chance(1, 2) ? 1 << 20 : 0;
    /* after a crash in cache mode the slots are believed as they are, rotten or not */
    c.sync = !run.rot && sim_chance(1, 2) ? SYNC_CACHE : SYNC_BUCKET;
    c.timeout_ms = sim_chance(1, 4) ? 1000 + (int64_t)sim_below(60000) : STORE_FOREVER;
    c.writeback_ms =
        sim_chance(1, h->ending == CRASHED ? 2 : 4) ? 300000 : 100 + (int64_t)sim_below(10000);
    c.compress = sim_chance(1, 4);
    c.discard_local = h->forked;
    c.uploads = 1 + (unsigned)sim_below(3);
    c.downloads = 1 + (unsigned)sim_below(3);
    c.gc = !sim_chance(1, 4);
    c.gc_grace_ms = sim_chance(1, 2) ? 0 : (int64_t)sim_below(600000);
    c.clock = &sim_clock;
    return c;
}

/* ------------------------------------------------------------------ what happens */

static void start_life(struct host *h)
{
    if (h->ending != FRESH && !h->on_top && sim_chance(1, 5)) {
        run_say("host %d: its cache directory is lost", h->number);
        disk_remove_all(h->dir);
        h->local = h->forked = false;
        h->ending = FRESH;
    } else if (!h->on_top && sim_chance(1, 10)) {
        run_say("host %d: its index.db is lost", h->number);
        disk_remove(h->dir, "index.db");
        h->index_lost = true;
    } else if (h->amid_work && !h->on_top && sim_chance(1, 5)) {
        run_say("host %d: the -wal of its index.db is lost", h->number);
        disk_remove(h->dir, "index.db-wal");
        h->wal_lost = true;
    }
    struct volume_config c = choose_config(h);
    choose_disk(h);
    if (c.discard_local)
        h->local = false;
    h->back = h->amid_work = false;
    /* some do too little for a checkpoint */
    unsigned operations =
        sim_chance(1, 3) ? 1 + (unsigned)sim_below(10) : 10 + (unsigned)sim_below(100);
    (void)life_start(h, &c, operations, sim_chance(1, 3));
}

static void bury(struct host *h, bool power_cut)
{
    struct life *l = h->life;

    h->amid_work = l->opened == 0 && !l->closing;
    run_say("host %d: %s while %s", h->number, power_cut ? "power cut" : "kill -9", l->doing);
    sched_kill(l->machine);
    bucket_forget_process(l->machine);
    disk_forget_process(l->machine);
    if (power_cut)
        disk_power_cut(h->dir);
    life_forget(l, true);
}

static void collect(struct host *h)
{
    if (h->life && h->life->over)
        life_forget(h->life, false);
}

static void rot(const struct host *h)
{
    for (int n = run.rot ? 1 + (int)sim_below(300) : 0; n > 0; n--) {
        const char *name = sim_chance(1, 16) ? "sums" : "slots";
        if (disk_flip(h->dir, name))
            run_say("host %d: a bit of its %s rots", h->number, name);
    }
}

static void befall(struct host *h)
{
    struct life *l = h->life;
    int64_t pause = (int64_t)sim_below(sim_chance(1, 3) ? DAY : 20 * SECOND);

    switch (sim_below(8)) {
    case 0:
    case 1:
        if (life_may_die(h))
            bury(h, sim_chance(1, 2));
        break;
    case 2:
    case 3:
        run_say("host %d: stops for %.3f s while %s", h->number, (double)pause / 1e6, l->doing);
        sched_pause(l->machine, sched_now_us() + pause);
        break;
    case 4:
        if (!run.calm) {
            run_say("outage for %.3f s", (double)pause / 1e6);
            bucket_outage(sched_now_us() + pause);
        }
        break;
    case 5:
        if (l->verified && !l->interrupted && sim_chance(1, 2) && l->closed == 1) {
            run_say("host %d: gives saving up", h->number);
            l->interrupted = l->keep_local = true;
            life_stop(l);
        }
        break;
    default:
        break;
    }
}

static bool is_dying(const struct host *h)
{
    return h->life ? h->life->dying : h->back;
}

/* Whose turn it is: that of one who dies, or did, mostly; before somebody else can take over. */
static struct host *choose_host(struct host *hosts)
{
    for (int i = 0; i < HOSTS; i++)
        if (is_dying(&hosts[i]) && sim_chance(1, 2))
            return &hosts[i];
    if (sim_volumes[THE_CLONE].newest && sim_chance(1, 3))
        return &hosts[CLONE_HOST];
    return &hosts[run.alone ? 0 : sim_below(HOSTS)];
}

static bool somebody_dies(const struct host *hosts)
{
    return is_dying(&hosts[0]) || is_dying(&hosts[1]);
}

static void live(struct host *hosts, int lives)
{
    while (lives > 0 || somebody_dies(hosts)) {
        if (run.lineage)
            lineage_step();
        struct host *h = choose_host(hosts);
        for (int i = 0; i <= CLONE_HOST; i++)
            collect(&hosts[i]);
        static const struct host nobody;
        const struct host *other = h->number < HOSTS ? &hosts[1 - h->number] : &nobody;
        if (h->life && h->life->dying) {
            enum death death = h->life->death;
            h->life->dying = false;
            h->back = life_may_die(h);
            if (h->back)
                bury(h, death == DEATH_CUT || (death == DEATH_ANY && sim_chance(1, 2)));
            else
                sched_pause(h->life->machine, 0);
        }
        bool alone = !other->life;
        /* what is uploaded before it was read the model does not know */
        bool unknown = !alone && (life_unknown(h) || life_unknown(other));
        if (!h->life && sim_chance(1, 4))
            rot(h);
        if (!h->life && (alone || (!unknown && sim_chance(1, 4)))) {
            start_life(h);
            lives--;
            if (h->number == CLONE_HOST)
                counts_add(COUNT_CLONE_LIVES);
        } else if (h->life) {
            befall(h);
        }
        int64_t most = sim_chance(1, 8) ? 30 * SECOND : sim_chance(1, 2) ? SECOND : SECOND / 50;
        sched_sleep_us((int64_t)sim_below((uint64_t)most));
    }
}

/* Everybody comes to an end; the sky clears. False: first somebody has to die. */
static bool settle(struct host *hosts)
{
    weather = (struct weather){.latency_us = 1000};
    bucket_outage(0);
    disk_fail_one_in("", NULL, 0);
    disk_fail_syncs_one_in(0);
    lineage_settle();
    for (int i = 0; i <= CLONE_HOST; i++) {
        int64_t until = sched_now_us() + 3 * DAY;
        while (hosts[i].life && !hosts[i].life->over && !somebody_dies(hosts) &&
               sched_now_us() < until)
            sched_sleep_us(SECOND);
        if (somebody_dies(hosts))
            return false;
        if (hosts[i].life && !hosts[i].life->over)
            sim_fail("host %d does not come to an end: %s", i, hosts[i].life->doing);
        collect(&hosts[i]);
    }
    return true;
}

/* What a snapshot that was no good when it was stored misses is told, too: it was deleted, and is
 * back with a late copy of its PUT. */
static uint64_t count_bad_pins(int volume, const char *text)
{
    char name[PIN_NAME_MAX];
    uint64_t n = 0;

    for (const char *at = text; (at = strstr(at, " of snapshot ")); at++)
        n += sscanf(at, " of snapshot %100s", name) == 1 && !watch_pin_is_good(volume, name);
    return n;
}

static void check_bucket(int volume)
{
    struct store *store = bucket_store(volume);
    uint64_t errors = 0;
    scope_free char *text = NULL;
    size_t len;
    FILE *report = open_memstream(&text, &len);
    int r = volume_check(store, report, &errors);

    fclose(report);
    uint64_t bad = count_bad_pins(volume, text);
    errors -= MIN(errors, bad);
    /* snapshots that need the lost number are lost, and said to be */
    for (const char *at = text; sim_volumes[volume].repaired && (at = strstr(at, "snapshot/"));
         at++)
        errors -= errors > 0;
    if (r < 0 || errors > 0)
        sim_fail("check of volume %d: %s: %s", volume, strerror(-r), text);
    store_free(store);
}

/* A machine that knows nothing finds what the bucket has. */
static void last_life(const char *dir, int volume)
{
    struct host h = {.number = CLONE_HOST + 1, .volume = &sim_volumes[volume], .ending = FRESH};

    (void)snprintf(h.dir, sizeof h.dir, "%s", dir);
    struct volume_config c = choose_config(&h);
    run.calm = true;
    c.sync = SYNC_BUCKET;
    c.timeout_ms = STORE_FOREVER;
    struct life *l = life_start(&h, &c, 5, false);
    l->last = true;
    while (!l->over)
        sched_sleep_us(SECOND);
    if (l->opened < 0 || !l->verified || l->closed < 0)
        sim_fail("the last machine cannot use the volume: %s, %s", strerror(-l->opened),
                 strerror(-l->closed));
}

static int agree(void *ctx, const struct volume_repair *plan)
{
    (void)ctx;
    run_say("it is repaired as of log/%016" PRIx64 ", %" PRIu64 " commits are given up", plan->seq,
            plan->commits_lost);
    return 0;
}

/* It goes back to an instant before what was lost, and can be used. */
static void repair_it(uint64_t lost)
{
    struct store *store = bucket_store(THE_VOLUME);
    struct volume_repair plan;
    int r = volume_repair(store, agree, NULL, &plan);

    store_free(store);
    if (r == -ENODATA && objects_count(THE_VOLUME, "map/") == 0)
        return; /* what was lost is the beginning */
    if (r < 0 || !plan.log_broken || plan.seq >= lost)
        sim_fail("log/%016" PRIx64 " is lost, and the repair to log/%016" PRIx64 " is: %s", lost,
                 r < 0 ? 0 : plan.seq, strerror(-r));
    sim_volumes[THE_VOLUME].repaired = true;
    check_bucket(THE_VOLUME);
    last_life("/sim/after", THE_VOLUME);
    check_bucket(THE_VOLUME);
}

/* The log lost what was acknowledged: nobody may take that for its end. */
static void lose_a_number(void)
{
    struct host h = {.number = CLONE_HOST + 2, .dir = "/sim/after", .ending = FRESH};
    struct volume_config c = choose_config(&h);
    uint64_t seq = bucket_lose_acknowledged();

    if (!seq)
        return;
    run_say("log/%016" PRIx64 " is lost", seq);
    struct volume *v = NULL;
    struct store *store = bucket_store(THE_VOLUME);
    int r = volume_open(store, &c, &v);
    if (r != -EBADMSG)
        sim_fail("log/%016" PRIx64 " is lost, and a machine attaches: %s", seq, strerror(-r));
    store_free(store);
    repair_it(seq);
}

static uint64_t simulate(void)
{
    static const uint32_t sizes[] = {2048, 4096, 8192, 16384};
    struct host hosts[CLONE_HOST + 1] = {
        {.number = 0, .dir = "/sim/0", .volume = &sim_volumes[THE_VOLUME]},
        {.number = 1, .dir = "/sim/1", .volume = &sim_volumes[THE_VOLUME]},
        {.number = CLONE_HOST, .dir = "/sim/2", .volume = &sim_volumes[THE_CLONE]},
    };
    uint32_t sectors;

    sched_start(seed);
    msg_set_sink(verbose ? MSG_STDERR : MSG_NONE);
    disk_start();
    disk_on_sync = life_on_sync;
    run.lineage =
        (seed * UINT64_C(0x9e3779b97f4a7c15) >> 32) % 3 == 0; /* the others stay as they are */
    lineage_start(hosts, CLONE_HOST + 1);
    sectors = sizes[sim_below(ARRAY_SIZE(sizes))];
    model_clients = 1 + (unsigned)sim_below(CLIENTS_MAX - 1);
    model_start(sectors);
    weather = (struct weather){.latency_us = 1000};
    struct store *store = bucket_store(THE_VOLUME);
    struct volume_create what = {.size_bytes = (uint64_t)sectors * SECTOR_BYTES};
    if (volume_create(store, &what) < 0)
        sim_fail("cannot create the volume");
    store_free(store);
    uint32_t *zeros = calloc(SECTORS_MAX, sizeof *zeros);
    sim_volumes[THE_VOLUME].newest = era_new(NULL, -1, 0, zeros, sectors);
    sim_volumes[THE_VOLUME].newest->sure = true;
    choose_weather();
    live(hosts, 2 + (int)sim_below(run.lineage ? 8 : 6));
    while (!settle(hosts))
        live(hosts, 0);
    lineage_look();
    for (int i = 0; i < VOLUMES; i++)
        if (sim_volumes[i].newest) {
            last_life(i == THE_VOLUME ? "/sim/last" : "/sim/clone", i);
            check_bucket(i);
        }
    lineage_look();
    lose_a_number();
    return sched_trace();
}

/* ------------------------------------------------------------------ many of them */

static pid_t start(uint64_t number)
{
    pid_t pid = fork();

    if (pid == 0) {
        alarm(300);
        seed = number;
        run.verbose = verbose;
        uint64_t trace = simulate();
        if (verbose)
            fprintf(stderr, "sim: seed %" PRIu64 ": trace %016" PRIx64 "\n", seed, trace);
        fflush(stderr);
        _exit(0);
    }
    return pid;
}

/* Most of the time went into getting memory page by page and giving it back: the heap is of huge
 * pages, and large enough from the start. */
static void prepare_memory(void)
{
    uintptr_t from = (uintptr_t)sbrk(0);

    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 256 << 20);
    void *volatile first = malloc(1 << 20); /* or the compiler sees that nobody needs it */
    free(first);
    uintptr_t to = (uintptr_t)sbrk(0);
    from = ROUND_UP(from, (uintptr_t)HUGE_PAGE);
    if (to > from) /* not under a sanitizer, which has an allocator of its own */
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
}

int main(int argc, char **argv)
{
    uint64_t first = 1, count = SEEDS_DEFAULT, failed = 0, begun = 0, running = 0;
    long jobs = sysconf(_SC_NPROCESSORS_ONLN);
    bool stop_at_first = false;
    pid_t pids[64] = {0};
    uint64_t numbers[64];

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        if (!strcmp(argv[i], "-v"))
            verbose = true;
        else if (!strcmp(argv[i], "--first"))
            stop_at_first = true;
        else if (!strcmp(argv[i], "--seed"))
            first = strtoull(value, NULL, 0), count = 1, i++;
        else if (!strcmp(argv[i], "--count"))
            count = strtoull(value, NULL, 0), i++;
        else if (!strcmp(argv[i], "--jobs"))
            jobs = strtol(value, NULL, 0), i++;
        else
            return fprintf(stderr, "usage: sim [--seed N] [--count N] [--jobs N] [--first] [-v]\n"),
                   2;
    }
    jobs = MIN(MAX(jobs, 1), (long)ARRAY_SIZE(pids));
    prepare_memory();
    counts_share();
    while (begun < count || running > 0) {
        if (begun < count && running < (uint64_t)jobs) {
            int at = 0;
            while (pids[at])
                at++;
            numbers[at] = first + begun++;
            pids[at] = start(numbers[at]);
            running++;
            continue;
        }
        int status, at = 0;
        pid_t pid = wait(&status);
        while (pids[at] != pid)
            at++;
        pids[at] = 0;
        running--;
        if (status == 0)
            continue;
        failed++;
        if (WIFSIGNALED(status))
            fprintf(stderr, "sim: seed %" PRIu64 ": signal %d\n", numbers[at], WTERMSIG(status));
        if (stop_at_first)
            count = begun;
    }
    counts_print();
    printf("%" PRIu64 " of %" PRIu64 " seeds from %" PRIu64 " failed\n", failed, begun, first);
    return failed > 0;
}
