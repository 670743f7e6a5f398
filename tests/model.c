/*
 * The model test: random reads, writes, discards and flushes on a volume in a directory, with a
 * cache that is too small, by several threads; clean remounts, umounts that upload nothing, kill -9
 * in the middle, lost caches, and a second cache that is stale. Compared with an array of bytes.
 *
 *   model [--seed N] [--rounds N] [--ops N] [--sync bucket|cache] DIR
 *
 * Each round is a child process that opens the volume, checks all of it, works, and ends well or is
 * killed. What a killed round may leave behind is computed from its operations, which are a
 * function of the seed. Prints the seed; exit 1 at the first difference.
 */
#include "../cache/volume.h"
#include "../store/msg.h"
#include "pattern.h"

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

enum {
    VOLUME_BYTES = 24 << 20,
    BLOCKS = VOLUME_BYTES / BLOCK,
    CACHE_BYTES = 6 << 20,
    OP_MAX = 700000,
    SPAN = 77777, /* of one thread, then comes the next one's; they share blocks and chunks */
    THREADS = 4,
};

enum how { CLEAN, KEEP_LOCAL, KILLED };

/* What the rounds share, in memory that outlives them. */
struct shared {
    unsigned char ref[VOLUME_BYTES]; /* the volume when the current round began to work */
    unsigned char disk[VOLUME_BYTES];
    /* of the round that is under way, or was killed; it is single-threaded then */
    _Atomic uint64_t started, finished, flushed;
    _Atomic bool working; /* these three are the current round's, no longer the last one's */
};

static struct {
    uint64_t seed, rounds, ops;
    enum sync_mode sync;
    char dir[512], url[600], cache[2][600];
} args = {.seed = 1, .rounds = 12, .ops = 400};

static struct shared *shared;

static void wrong(const char *what, uint64_t round, uint64_t at)
{
    fprintf(stderr,
            "model: %s (round %" PRIu64 ", byte %" PRIu64 ", block %" PRIu64 "); seed %" PRIu64
            "\n",
            what, round, at, at / BLOCK, args.seed);
    exit(1);
}

static void need(int r, const char *what, uint64_t round)
{
    if (r == 0)
        return;
    errno = -r;
    fprintf(stderr, "model: %s: %s (round %" PRIu64 "); seed %" PRIu64 "\n", what, strerror(errno),
            round, args.seed);
    exit(1);
}

/* ---------------------------------------------------------------------------------- operations */

struct op {
    enum { WRITE, DISCARD, READ, FLUSH } kind;
    uint64_t offset, len, tag;
};

/* The i'th operation of a stream, within [low, high). */
static struct op make_op(uint64_t stream, uint64_t i, uint64_t low, uint64_t high)
{
    static const uint32_t most[] = {100, 4096, 9000, 9000, 70000, 70000, 300000, OP_MAX};
    uint64_t rng = mix(args.seed * 1000003 + stream) + i * 8;
    uint64_t what = draw(&rng, 100), len = 1 + draw(&rng, most[draw(&rng, 8)]);
    struct op op = {.tag = mix(rng),
                    .kind = what < 50   ? WRITE
                            : what < 58 ? DISCARD
                            : what < 96 ? READ
                                        : FLUSH};
    bool aligned = draw(&rng, 2);

    op.len = len < high - low ? len : high - low;
    op.offset = low + draw(&rng, high - low - op.len + 1);
    if (aligned && op.offset % BLOCK + op.len >= BLOCK && op.offset - op.offset % BLOCK >= low) {
        op.offset -= op.offset % BLOCK;
        op.len -= op.len % BLOCK;
    }
    if (op.len == 0)
        op.len = 1;
    return op;
}

/* What the operation does to an array of bytes. */
static void model_op(unsigned char *bytes, const struct op *op)
{
    if (op->kind == WRITE)
        pattern(bytes + op->offset, op->len, op->offset, op->tag);
    else if (op->kind == DISCARD)
        memset(bytes + op->offset, 0, op->len);
}

/* Does it to the volume and to `bytes`. */
static void do_op(struct volume *volume, unsigned char *bytes, const struct op *op, void *buf,
                  uint64_t round)
{
    model_op(bytes, op);
    switch (op->kind) {
    case WRITE:
        need(volume_write(volume, bytes + op->offset, op->len, op->offset, true), "write", round);
        break;
    case DISCARD:
        need(volume_discard(volume, op->offset, op->len), "discard", round);
        break;
    case READ:
        need(volume_read(volume, buf, op->len, op->offset, true), "read", round);
        if (memcmp(buf, bytes + op->offset, op->len))
            wrong("a read gave other bytes than were written", round, op->offset);
        break;
    case FLUSH:
        need(volume_flush(volume, true), "flush", round);
        break;
    }
}

struct worker {
    struct volume *volume;
    uint64_t round;
    unsigned nth;
    pthread_t thread;
};

/* Owns every THREADS'th span, in the volume and in the model. */
static void *work(void *ctx)
{
    struct worker *w = ctx;
    void *buf = malloc(OP_MAX);
    uint64_t spans = VOLUME_BYTES / SPAN / THREADS;

    if (!buf)
        die("memory");
    for (uint64_t i = 0; i < args.ops; i++) {
        uint64_t stream = w->round * 100 + w->nth, rng = mix(stream) + i;
        uint64_t low = (draw(&rng, spans) * THREADS + w->nth) * SPAN;
        struct op op = make_op(stream, i, low, low + SPAN);
        do_op(w->volume, shared->ref, &op, buf, w->round);
    }
    free(buf);
    return NULL;
}

static void work_together(struct volume *volume, uint64_t round)
{
    struct worker w[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.volume = volume, .round = round, .nth = i};
        if (pthread_create(&w[i].thread, NULL, work, &w[i]))
            die("thread");
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(w[i].thread, NULL);
}

/* Until killed. shared->ref stays as it was. */
static void work_alone(struct volume *volume, uint64_t round)
{
    unsigned char *bytes = malloc(VOLUME_BYTES), *buf = malloc(OP_MAX);

    if (!bytes || !buf)
        die("memory");
    memcpy(bytes, shared->ref, VOLUME_BYTES);
    for (uint64_t i = 0; i < args.ops * 1000; i++) {
        struct op op = make_op(round * 100, i, 0, VOLUME_BYTES);
        shared->started = i + 1;
        do_op(volume, bytes, &op, buf, round);
        shared->finished = i + 1;
        if (op.kind == FLUSH)
            shared->flushed = i + 1;
    }
    pause();
}

/* ------------------------------------------------------------------------------------ checking */

/* Replays a killed round over shared->ref, one operation at a time. */
struct replay {
    uint64_t round, i;
    uint64_t nwrong; /* blocks in which the disk differs from the model now */
    bool wrong[BLOCKS];
    bool seen[BLOCKS]; /* the disk's block was the model's at some time from `flushed` on */
};

static void replay_look(struct replay *r, uint64_t offset, uint64_t len)
{
    for (uint64_t b = offset / BLOCK; b * BLOCK < offset + len; b++) {
        bool differs = memcmp(shared->disk + b * BLOCK, shared->ref + b * BLOCK, BLOCK) != 0;
        r->nwrong += differs;
        r->nwrong -= r->wrong[b];
        r->wrong[b] = differs;
        r->seen[b] |= !differs && r->i >= shared->flushed;
    }
}

static void replay_step(struct replay *r)
{
    struct op op = make_op(r->round * 100, r->i++, 0, VOLUME_BYTES);
    model_op(shared->ref, &op);
    if (op.kind == WRITE || op.kind == DISCARD)
        replay_look(r, op.offset, op.len);
    if (r->i == shared->flushed)
        replay_look(r, 0, VOLUME_BYTES);
}

/* The volume after a killed round. `whole`: it must be as of one instant, at or after operation
 * `from`; else each block for itself as of some instant after the last flush. */
static void check_killed(uint64_t round, bool whole, uint64_t from)
{
    struct replay *r = calloc(1, sizeof *r);
    bool instant = false;

    if (!r)
        die("memory");
    r->round = round;
    replay_look(r, 0, VOLUME_BYTES);
    for (;;) {
        instant |= r->nwrong == 0 && r->i >= from;
        if (r->i == shared->started)
            break;
        replay_step(r);
    }
    if (whole && !instant) {
        fprintf(stderr, "model: %" PRIu64 " operations, the last flush was number %" PRIu64 "\n",
                (uint64_t)shared->finished, (uint64_t)shared->flushed);
        wrong("after a kill the volume is as of no instant since the last flush", round, 0);
    }
    for (uint64_t b = 0; !whole && b < BLOCKS; b++)
        if (!r->seen[b])
            wrong("after a kill a block is neither as flushed nor as written later", round,
                  b * BLOCK);
    free(r);
}

/* Where the volume says that there is nothing there must be nothing but zeros. */
static void check_holes(struct volume *volume, uint64_t round)
{
    for (uint64_t at = 0; at < VOLUME_BYTES;) {
        uint64_t data = VOLUME_BYTES;
        int r = volume_seek(volume, at, true, &data);
        if (r != -ENXIO)
            need(r, "seek", round);
        for (; at < data; at++)
            if (shared->ref[at])
                wrong("data in a hole", round, at);
        if (at < VOLUME_BYTES)
            need(volume_seek(volume, at, false, &at), "seek", round);
    }
}

static void read_all_of_it(struct volume *volume, uint64_t round)
{
    for (uint64_t at = 0, len; at < VOLUME_BYTES; at += len) {
        len = VOLUME_BYTES - at < 999999 ? VOLUME_BYTES - at : 999999;
        need(volume_read(volume, shared->disk + at, len, at, true), "read", round);
    }
}

/* -------------------------------------------------------------------------------------- rounds */

struct round {
    uint64_t nth;
    enum how before, now; /* how the last one ended, how this one shall */
    bool lost;            /* the cache, in between */
    unsigned cache;       /* which of the two */
};

static void check(struct volume *volume, const struct round *r)
{
    read_all_of_it(volume, r->nth);
    if (r->before == KILLED) {
        bool in_cache = args.sync == SYNC_CACHE;
        check_killed(r->nth - 1, !in_cache || r->lost, in_cache ? 0 : shared->flushed);
        memcpy(shared->ref, shared->disk, VOLUME_BYTES);
    }
    for (uint64_t at = 0; at < VOLUME_BYTES; at++)
        if (shared->disk[at] != shared->ref[at])
            wrong("after a mount the volume is not as it was left", r->nth, at);
    check_holes(volume, r->nth);
}

/* In a process of its own. */
static void play(const struct round *r)
{
    static const int64_t delay[] = {0, 20, 500, 100000};
    uint64_t rng = mix(args.seed ^ r->nth << 40);
    struct store_config store_config = {0};
    struct store *store;
    struct volume *volume;
    struct volume_config config;

    volume_config_init(&config);
    config.cache_dir = args.cache[r->cache];
    config.cache_bytes = CACHE_BYTES;
    config.dirty_bytes = CACHE_BYTES / 2;
    config.readahead_bytes = draw(&rng, 2) << 20;
    config.sync = args.sync;
    config.timeout_ms = STORE_FOREVER;
    config.writeback_ms = delay[draw(&rng, 4)];
    config.compress = draw(&rng, 2);
    need(store_open(&store_config, args.url, &store), "store_open", r->nth);
    need(volume_open(store, &config, &volume), "volume_open", r->nth);
    check(volume, r);
    need(volume_drain(volume), "drain", r->nth);
    shared->started = shared->finished = shared->flushed = 0;
    shared->working = true;
    if (r->now == KILLED)
        work_alone(volume, r->nth);
    else
        work_together(volume, r->nth);
    need(volume_close(volume, r->now == KEEP_LOCAL), "close", r->nth);
    store_free(store);
    exit(0);
}

static void remove_tree(const char *path)
{
    char command[700];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command)) /* a path of ours */
        die(path);
}

/* Starts the round, and kills it where that is asked for. */
static void run(const struct round *r, uint64_t *rng)
{
    int status;
    pid_t pid;

    shared->working = false;
    pid = fork();

    if (pid < 0)
        die("fork");
    if (pid == 0)
        play(r);
    if (r->now == KILLED) {
        uint64_t enough = 1 + draw(rng, args.ops);
        struct timespec tick = {.tv_nsec = 200000};
        while (!(shared->working && shared->started >= enough) &&
               waitpid(pid, &status, WNOHANG) == 0)
            nanosleep(&tick, NULL);
        tick.tv_nsec = (long)draw(rng, 3000000);
        nanosleep(&tick, NULL);
        kill(pid, SIGKILL);
        if (!shared->working || shared->started < enough)
            exit(1); /* it has said why */
    }
    if (waitpid(pid, &status, 0) < 0)
        die("waitpid");
    if (r->now == KILLED ? !WIFSIGNALED(status) : status != 0) {
        fprintf(stderr, "model: round %" PRIu64 " ended with status %#x; seed %" PRIu64 "\n",
                r->nth, status, args.seed);
        exit(1);
    }
}

static void prepare(void)
{
    struct store_config store_config = {0};
    struct volume_create create = {.size_bytes = VOLUME_BYTES, .compress = true};
    struct store *store;

    snprintf(args.url, sizeof args.url, "%s/volume", args.dir);
    for (int i = 0; i < 2; i++) {
        snprintf(args.cache[i], sizeof args.cache[i], "%s/cache%d", args.dir, i);
        remove_tree(args.cache[i]);
    }
    remove_tree(args.url);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("memory");
    need(store_open(&store_config, args.url, &store), "store_open", 0);
    need(volume_create(store, &create), "create", 0);
    store_free(store);
}

static void parse(int argc, char **argv)
{
    int i = 1;
    for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
        if (!strcmp(argv[i], "--seed"))
            args.seed = number(argv[i + 1]);
        else if (!strcmp(argv[i], "--rounds"))
            args.rounds = number(argv[i + 1]);
        else if (!strcmp(argv[i], "--ops"))
            args.ops = number(argv[i + 1]);
        else if (!strcmp(argv[i], "--sync"))
            args.sync = !strcmp(argv[i + 1], "cache") ? SYNC_CACHE : SYNC_BUCKET;
        else
            break;
    }
    if (i != argc - 1 || strlen(argv[i]) >= sizeof args.dir) {
        fprintf(stderr,
                "usage: model [--seed N] [--rounds N] [--ops N] [--sync bucket|cache] DIR\n");
        exit(2);
    }
    strcpy(args.dir, argv[i]);
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("model: seed %" PRIu64 ", sync %s\n", args.seed,
           args.sync == SYNC_CACHE ? "cache" : "bucket");
    prepare();
    uint64_t rng = mix(args.seed);
    struct round r = {.before = CLEAN};
    for (r.nth = 1; r.nth <= args.rounds; r.nth++) {
        r.now = r.nth == args.rounds ? CLEAN : draw(&rng, 3);
        printf("round %" PRIu64 ": cache %u%s, %s\n", r.nth, r.cache, r.lost ? ", lost before" : "",
               r.now == CLEAN        ? "clean"
               : r.now == KEEP_LOCAL ? "keep local"
                                     : "killed");
        run(&r, &rng);
        r.before = r.now;
        /* What only the cache has must not be lost; else it may, or another one takes over. */
        r.lost = r.now != KEEP_LOCAL && draw(&rng, 3) == 0;
        if (r.lost)
            remove_tree(args.cache[r.cache]);
        else if (r.now == CLEAN && draw(&rng, 2))
            r.cache = !r.cache;
    }
    munmap(shared, sizeof *shared);
    return 0;
}
