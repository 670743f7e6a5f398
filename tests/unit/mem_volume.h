/* A volume in a bucket in memory, with its cache in a temporary directory. */
#ifndef MEM_VOLUME_H
#define MEM_VOLUME_H

#include "mem_store.h"

#include "../../cache/volume.h"
#include "../pattern.h"

#include <ftw.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

enum { CHUNK = 256 * 1024 };

static struct mem mem;
static char cache_dir[256];
static struct volume_config cfg; /* of the next attach() */
static struct store *store;
static struct volume *volume;

static inline int volume_setup(void **state)
{
    const char *tmp = getenv("T") ? getenv("T") : getenv("TMPDIR");

    (void)state;
    msg_set_sink(getenv("V") ? MSG_STDERR : MSG_NONE);
    mem_init(&mem);
    snprintf(cache_dir, sizeof cache_dir, "%s/s3vol-unit-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(cache_dir));
    volume_config_init(&cfg);
    cfg.cache_dir = cache_dir;
    cfg.cache_bytes = 16 * MIB;
    cfg.writeback_ms = 1000000000; /* only when asked to */
    cfg.downloads = 4;
    store = NULL;
    volume = NULL;
    return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void lose_cache(void)
{
    nftw(cache_dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline int detach(bool keep_local)
{
    int r = volume_close(volume, keep_local);

    store_free(store);
    volume = NULL;
    store = NULL;
    return r;
}

static inline int volume_teardown(void **state)
{
    (void)state;
    if (volume) /* the test failed: quickly */
        detach(true);
    lose_cache();
    mem_destroy(&mem);
    return 0;
}

static inline int try_attach(void)
{
    store = mem_store(&mem, &clock_system);
    int r = volume_open(store, &cfg, &volume);
    if (r < 0) {
        store_free(store);
        store = NULL;
        volume = NULL;
    }
    return r;
}

static inline void attach(void)
{
    assert_int_equal(try_attach(), 0);
}

static inline void create(uint64_t size_bytes)
{
    struct volume_create what = {.size_bytes = size_bytes, .compress = true};

    store = mem_store(&mem, &mem_clock);
    assert_int_equal(volume_create(store, &what), 0);
    store_free(store);
    store = NULL;
}

static inline void create_and_attach(uint64_t size_bytes)
{
    create(size_bytes);
    attach();
}

static inline struct volume_status status(void)
{
    struct volume_status st;

    volume_get_status(volume, &st);
    return st;
}

/* Pattern `tag` in [offset, offset + len). */
static inline int write_pattern(uint64_t offset, size_t len, uint64_t tag, bool wait)
{
    scope_free uint8_t *buf = aligned_alloc(BLOCK, ROUND_UP(len, (size_t)BLOCK));

    pattern(buf, len, offset, tag);
    return volume_write(volume, buf, len, offset, wait);
}

static inline void put(uint64_t offset, size_t len, uint64_t tag)
{
    assert_int_equal(write_pattern(offset, len, tag, true), 0);
}

/* What is there: 0 if it is the pattern `tag` (0: zeros), else an error. */
static inline int check_pattern(uint64_t offset, size_t len, uint64_t tag, bool wait)
{
    scope_free uint8_t *buf = aligned_alloc(BLOCK, ROUND_UP(len, (size_t)BLOCK));
    scope_free uint8_t *want = calloc(1, len);
    int r = volume_read(volume, buf, len, offset, wait);

    if (tag)
        pattern(want, len, offset, tag);
    return r < 0 ? r : memcmp(buf, want, len) == 0 ? 0 : -EILSEQ;
}

static inline void expect(uint64_t offset, size_t len, uint64_t tag)
{
    assert_int_equal(check_pattern(offset, len, tag, true), 0);
}

/* Another machine attaches, with a cache of its own. */
static inline void take_over(void)
{
    struct volume_config theirs = cfg;
    struct store *their_store = mem_store(&mem, &clock_system);
    struct volume *their_volume;
    char dir[300];

    snprintf(dir, sizeof dir, "%s/theirs", cache_dir);
    theirs.cache_dir = dir;
    assert_int_equal(volume_open(their_store, &theirs, &their_volume), 0);
    assert_int_equal(volume_close(their_volume, false), 0);
    store_free(their_store);
}

/* A call in a thread, which must end by itself. */
struct caller {
    int (*fn)(void);
    int result;
    atomic_bool done;
    pthread_t thread;
};

static inline void *caller_main(void *arg)
{
    struct caller *c = arg;

    c->result = c->fn();
    c->done = true;
    return NULL;
}

static inline void call(struct caller *c, int (*fn)(void))
{
    *c = (struct caller){.fn = fn};
    assert_int_equal(pthread_create(&c->thread, NULL, caller_main, c), 0);
}

static inline int called(struct caller *c)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += 60;
    if (pthread_timedjoin_np(c->thread, NULL, &t) != 0) {
        fprintf(stderr, "a call hangs\n");
        abort(); /* the rest of this program would hang, too */
    }
    return c->result;
}

/* Waits for something that a thread of the volume does. */
#define await(condition)                                                                           \
    do {                                                                                           \
        int64_t until_ = clock_system.now_ms() + 60000;                                            \
        while (!(condition) && clock_system.now_ms() < until_)                                     \
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);                               \
        assert_true(condition);                                                                    \
    } while (0)

/* Scripts. */
static inline enum mem_act script_fail(void *ctx, char verb, const char *key)
{
    (void)ctx, (void)verb, (void)key;
    return MEM_FAIL;
}

/* `ctx` is a string of verbs that hang. */
static inline enum mem_act script_hang(void *ctx, char verb, const char *key)
{
    (void)key;
    return strchr(ctx, verb) ? MEM_HANG : MEM_OK;
}

static inline enum mem_act script_fail_verbs(void *ctx, char verb, const char *key)
{
    (void)key;
    return strchr(ctx, verb) ? MEM_FAIL : MEM_OK;
}

#endif
