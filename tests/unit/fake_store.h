/* A store over a scripted backend, in a time that passes only when somebody waits, and an ear for
 * what it says. For one test program, which includes cmocka.h before. */
#ifndef FAKE_STORE_H
#define FAKE_STORE_H

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../../store/store.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

/* ------------------------------------------------------------------ a clock that jumps */

static atomic_llong now_ms;
static atomic_bool waits_for_real; /* only a signal ends a wait */
static atomic_int nwaits;
static int64_t longest_wait_ms;

static int64_t fake_now(void)
{
    return now_ms;
}

static int64_t fake_wall(void)
{
    return 1700000000000 + now_ms;
}

static bool fake_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms)
{
    nwaits++;
    if (waits_for_real) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec += 30;
        return pthread_cond_timedwait(cond, lock, &t) == 0;
    }
    longest_wait_ms = MAX(longest_wait_ms, until_ms - now_ms);
    now_ms = until_ms;
    return false;
}

static const struct clock fake_clock = {fake_now, fake_wall, fake_wait};

/* ------------------------------------------------------------------ a backend with a script */

static struct {
    int nfail; /* so many tries fail, as follows; -1: all */
    enum store_fate fate;
    int error;
    int64_t try_ms;     /* takes so long */
    size_t cut;         /* a failing GET hands over so many bytes first */
    bool lost;          /* a failing PUT was carried out */
    const char *object; /* the content of every object; NULL: none */
    int ntries, ndeleted;
    const char **listed; /* in pages of 2 */
    bool endless;        /* … each of which promises another */
    bool stopped;
} fake;

static int fake_try(struct store_error *err)
{
    fake.ntries++;
    now_ms += fake.try_ms;
    if (fake.nfail == 0)
        return 0;
    if (fake.nfail > 0)
        fake.nfail--;
    err->fate = fake.fate;
    strcpy(err->text, "the script says so");
    return fake.error;
}

static int fake_put(void *self, const char *key, const void *data, size_t len, unsigned flags,
                    struct store_error *err)
{
    (void)self, (void)key, (void)data, (void)len;
    int r = fake_try(err);
    if (r < 0 && !fake.lost)
        return r;
    if (fake.object && (flags & STORE_IF_ABSENT))
        return -EEXIST;
    fake.object = "stored";
    return r;
}

static int fake_get(void *self, const char *key, uint64_t offset, uint64_t len, store_sink *sink,
                    void *ctx, uint64_t *ret_size, struct store_error *err)
{
    (void)self, (void)key;
    int r = fake_try(err);
    if (!fake.object)
        return r < 0 ? r : -ENOENT;
    size_t size = strlen(fake.object);
    uint64_t n = offset < size ? MIN(len, size - offset) : 0;
    if (r < 0)
        n = MIN(n, fake.cut);
    *ret_size = size;
    int r_sink = n ? sink(ctx, fake.object + offset, n) : 0;
    return r_sink < 0 ? r_sink : r;
}

static int fake_list(void *self, const char *prefix, const char *start_after, bool dirs,
                     struct store_page *page, struct store_error *err)
{
    (void)self, (void)prefix, (void)dirs;
    int r = fake_try(err);
    page->items = calloc(2, sizeof *page->items); /* also with an error */
    for (const char **k = fake.listed; k && *k && !page->more; k++) {
        if (strcmp(*k, start_after) <= 0)
            continue;
        if (page->nitems == 2)
            page->more = true;
        else
            strcpy(page->items[page->nitems++].key, *k);
    }
    page->more |= fake.endless;
    return r;
}

static int fake_del(void *self, const char *const *keys, size_t nkeys, struct store_error *err)
{
    (void)self, (void)keys;
    int r = fake_try(err);
    assert_in_range(nkeys, 1, 1000);
    fake.ndeleted += r == 0 ? (int)nkeys : 0;
    return r;
}

static void fake_stop(void *self)
{
    (void)self;
    fake.stopped = true;
}

static void fake_free(void *self)
{
    (void)self;
}

static struct store *store;

static int setup(void **state)
{
    static const struct store_ops ops = {fake_put, fake_get,  fake_list,
                                         fake_del, fake_stop, fake_free};
    struct store_backend backend = {.ops = &ops, .url = "s3://b/vm1"};

    (void)state;
    memset(&fake, 0, sizeof fake);
    fake.error = -EIO;
    fake.fate = STORE_RETRY;
    now_ms = 1000;
    longest_wait_ms = 0;
    nwaits = 0;
    waits_for_real = false;
    return store_new(&backend, &fake_clock, &store);
}

static int teardown(void **state)
{
    (void)state;
    store_free(store);
    return 0;
}

/* ------------------------------------------------------------------ what was said */

static char said[8192];
static int saved_stderr, said_fd;

static void listen_begin(void)
{
    fflush(stderr);
    saved_stderr = dup(2);
    said_fd = memfd_create("said", 0);
    dup2(said_fd, 2);
    msg_set_sink(MSG_STDERR);
}

/* The number of lines; the text is in said[]. */
static int listen_end(void)
{
    int n = 0;

    msg_set_sink(MSG_NONE);
    fflush(stderr);
    dup2(saved_stderr, 2);
    ssize_t len = pread(said_fd, said, sizeof said - 1, 0);
    said[MAX(len, 0)] = 0;
    close(saved_stderr);
    close(said_fd);
    for (char *p = said; *p; p++)
        n += *p == '\n';
    return n;
}

#endif
