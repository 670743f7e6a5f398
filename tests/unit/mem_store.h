/*
 * A bucket in memory, shared by any number of stores ("machines"), with a script that decides how
 * each try goes; and a clock on which nobody waits. For one test program, which includes cmocka.h
 * before.
 */
#ifndef MEM_STORE_H
#define MEM_STORE_H

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "../../store/store.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* ------------------------------------------------------------------ a clock that jumps */

static _Atomic int64_t mem_clock_ahead_ms;
static _Atomic unsigned mem_clock_waits;

static inline int64_t mem_now(void)
{
    return clock_system.now_ms() + mem_clock_ahead_ms;
}

static inline int64_t mem_wall(void)
{
    return 1700000000000;
}

/* The time is reached at once; others get the lock meanwhile. */
static inline bool mem_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms)
{
    (void)cond;
    int64_t ahead = until_ms - mem_now();
    if (ahead > 0)
        mem_clock_ahead_ms += ahead;
    mem_clock_waits++;
    pthread_mutex_unlock(lock);
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    pthread_mutex_lock(lock);
    return false;
}

static const struct clock mem_clock = {mem_now, mem_wall, mem_wait_until};

/* ------------------------------------------------------------------ the bucket */

enum mem_act {
    MEM_OK,
    MEM_FAIL,   /* a passing failure; nothing was done */
    MEM_LOSE,   /* done, but the answer is lost */
    MEM_REFUSE, /* a final failure */
    MEM_DENY,   /* refused, as with expired credentials */
    MEM_HANG,   /* no answer until the script, asked again after mem_retry(), says so */
};

struct mem_object {
    char key[STORE_KEY_MAX];
    uint8_t *data;
    size_t len;
};

/* What becomes of a try: verb is 'P', 'G', 'L' or 'D'. The bucket's lock is held. */
typedef enum mem_act mem_script(void *ctx, char verb, const char *key);

struct mem {
    const char *name; /* of the volume in it */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct mem_object *objects; /* by key */
    size_t n, room;
    bool ignores_conditions; /* puts over what is there */
    mem_script *script;
    void *ctx;
    unsigned tries[128]; /* by verb */
    unsigned hanging, retries;
};

struct mem_client {
    struct mem *mem;
    atomic_bool stopped;
};

static inline void mem_init(struct mem *m)
{
    *m = (struct mem){.name = "vm1"};
    pthread_mutex_init(&m->lock, NULL);
    clock_cond_init(&m->changed);
}

static inline void mem_destroy(struct mem *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->objects[i].data);
    free(m->objects);
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
}

/* The first object whose key is not less. */
static inline size_t mem_at(const struct mem *m, const char *key)
{
    size_t i = 0;

    while (i < m->n && strcmp(m->objects[i].key, key) < 0)
        i++;
    return i;
}

static inline struct mem_object *mem_find(struct mem *m, const char *key)
{
    size_t i = mem_at(m, key);

    return i < m->n && strcmp(m->objects[i].key, key) == 0 ? &m->objects[i] : NULL;
}

static inline void mem_set(struct mem *m, const char *key, const void *data, size_t len)
{
    struct mem_object *o = mem_find(m, key);

    if (!o) {
        size_t at = mem_at(m, key);
        if (m->n == m->room) {
            m->room = 2 * m->room + 64;
            m->objects = realloc(m->objects, m->room * sizeof *m->objects);
        }
        o = &m->objects[at];
        memmove(o + 1, o, (m->n - at) * sizeof *o);
        m->n++;
        *o = (struct mem_object){0};
        strcpy(o->key, key);
    }
    free(o->data);
    o->data = malloc(len + 1);
    memcpy(o->data, data, len);
    o->len = len;
}

static inline void mem_remove(struct mem *m, const char *key)
{
    struct mem_object *o = mem_find(m, key);

    if (!o)
        return;
    free(o->data);
    m->n--;
    memmove(o, o + 1, (size_t)(m->objects + m->n - o) * sizeof *o);
}

static inline size_t mem_count(const struct mem *m, const char *prefix)
{
    size_t n = 0;

    for (size_t i = 0; i < m->n; i++)
        n += strncmp(m->objects[i].key, prefix, strlen(prefix)) == 0;
    return n;
}

/* From now on tries go as this says; those that hang ask again. */
static inline void mem_retry(struct mem *m, mem_script *script, void *ctx)
{
    scope_lock(&m->lock);
    m->script = script;
    m->ctx = ctx;
    m->retries++;
    pthread_cond_broadcast(&m->changed);
}

/* Waits until so many tries hang. */
static inline void mem_await_hanging(struct mem *m, unsigned n)
{
    int64_t until = clock_system.now_ms() + 30000;

    scope_lock(&m->lock);
    while (m->hanging < n && clock_system.now_ms() < until)
        clock_system.wait_until(&m->changed, &m->lock, until);
    assert_true(m->hanging >= n);
}

/* ------------------------------------------------------------------ the backend */

static inline int mem_failed(struct store_error *err, enum store_fate fate, const char *text)
{
    err->fate = fate;
    strcpy(err->text, text);
    return -EIO;
}

/* How this try goes. Lock held, released while it hangs. */
static inline int mem_begin(struct mem_client *c, char verb, const char *key, bool *ret_lose,
                            struct store_error *err)
{
    struct mem *m = c->mem;
    enum mem_act act;

    m->tries[(int)verb]++;
    m->hanging++;
    while ((act = m->script ? m->script(m->ctx, verb, key) : MEM_OK) == MEM_HANG && !c->stopped) {
        pthread_cond_broadcast(&m->changed);
        for (unsigned retries = m->retries; m->retries == retries && !c->stopped;)
            pthread_cond_wait(&m->changed, &m->lock);
    }
    m->hanging--;
    *ret_lose = act == MEM_LOSE;
    return act == MEM_OK || act == MEM_LOSE ? 0
           : act == MEM_REFUSE              ? mem_failed(err, STORE_FINAL, "refused by the script")
           : act == MEM_DENY                ? mem_failed(err, STORE_REFUSED, "denied by the script")
                                            : mem_failed(err, STORE_RETRY, "failed by the script");
}

static inline int mem_op_put(void *self, const char *key, const void *data, size_t len,
                             unsigned flags, struct store_error *err)
{
    struct mem_client *c = self;
    struct mem *m = c->mem;
    bool lose;

    scope_lock(&m->lock);
    int r = mem_begin(c, 'P', key, &lose, err);
    if (r < 0)
        return r;
    if (flags & STORE_IF_ABSENT && !m->ignores_conditions && mem_find(m, key))
        return -EEXIST;
    mem_set(m, key, data, len);
    pthread_cond_broadcast(&m->changed);
    return lose ? mem_failed(err, STORE_RETRY, "lost by the script") : 0;
}

static inline int mem_op_get(void *self, const char *key, uint64_t offset, uint64_t len,
                             store_sink *sink, void *ctx, uint64_t *ret_size,
                             struct store_error *err)
{
    struct mem_client *c = self;
    scope_free uint8_t *copy = NULL;
    uint64_t n = 0;
    bool lose;
    {
        scope_lock(&c->mem->lock);
        int r = mem_begin(c, 'G', key, &lose, err);
        struct mem_object *o = mem_find(c->mem, key);
        if (r < 0 || !o)
            return r < 0 ? r : -ENOENT;
        *ret_size = o->len;
        n = offset < o->len ? MIN(len, o->len - offset) : 0;
        copy = malloc(n + 1);
        if (n > 0)
            memcpy(copy, o->data + offset, n);
    }
    return n ? sink(ctx, copy, n) : 0; /* without the lock: it may take others */
}

static inline int mem_op_list(void *self, const char *prefix, const char *start_after, bool dirs,
                              struct store_page *page, struct store_error *err)
{
    struct mem_client *c = self;
    struct mem *m = c->mem;
    bool lose;

    assert_false(dirs);
    scope_lock(&m->lock);
    int r = mem_begin(c, 'L', prefix, &lose, err);
    if (r < 0)
        return r;
    page->items = calloc(1000, sizeof *page->items);
    for (size_t i = 0; i < m->n; i++) {
        const struct mem_object *o = &m->objects[i];
        if (strncmp(o->key, prefix, strlen(prefix)) != 0 || strcmp(o->key, start_after) <= 0)
            continue;
        page->more = page->nitems == 1000;
        if (page->more)
            break;
        strcpy(page->items[page->nitems].key, o->key);
        page->items[page->nitems++].size_bytes = o->len;
    }
    return 0;
}

static inline int mem_op_del(void *self, const char *const *keys, size_t nkeys,
                             struct store_error *err)
{
    struct mem_client *c = self;
    bool lose;

    scope_lock(&c->mem->lock);
    int r = mem_begin(c, 'D', keys[0], &lose, err);
    for (size_t i = 0; r == 0 && i < nkeys; i++)
        mem_remove(c->mem, keys[i]);
    return r;
}

static inline void mem_op_stop(void *self)
{
    struct mem_client *c = self;

    scope_lock(&c->mem->lock);
    c->stopped = true;
    pthread_cond_broadcast(&c->mem->changed);
}

/* One machine's store over the bucket; store_free() it. NULL without memory. */
static inline struct store *mem_try_store(struct mem *m, const struct clock *clock)
{
    static const struct store_ops ops = {mem_op_put, mem_op_get,  mem_op_list,
                                         mem_op_del, mem_op_stop, free};
    struct mem_client *c = calloc(1, sizeof *c);
    struct store_backend backend = {.ops = &ops, .self = c};
    struct store *store = NULL;

    (void)snprintf(backend.url, sizeof backend.url, "mem://b/%s", m->name);

    c->mem = m;
    (void)store_new(&backend, clock, &store);
    return store;
}

static inline struct store *mem_store(struct mem *m, const struct clock *clock)
{
    struct store *store = mem_try_store(m, clock);

    assert_non_null(store);
    return store;
}

#endif
