#include "store_internal.h"

#include "msg.h"
#include "scope.h"
#include "url.h"

#include <string.h>
#include <sys/random.h>

enum { DELETE_BATCH = 1000 }; /* S3's limit */

static int key_check(struct store *store, const char *key, bool prefix)
{
    static const char valid[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/";
    size_t len = strlen(key);
    bool ok = len < STORE_KEY_MAX && !key[strspn(key, valid)];

    /* No component that is empty or begins with '.': neither "..", nor a backend's own files. */
    for (const char *p = key; ok && *p; p += strcspn(p, "/"), p += *p == '/')
        ok = *p != '/' && *p != '.';
    if (!prefix)
        ok = ok && len && key[len - 1] != '/';
    return ok ? 0
              : msg_error(-EINVAL, "%s: \"%s\" cannot be an object's name", store_url(store), key);
}

static int write_check(struct store *store, const char *key)
{
    return store->read_only
               ? msg_error(-EROFS, "%s: %s: nothing is to be written here", store_url(store), key)
               : key_check(store, key, false);
}

int store_put(struct store *store, const char *key, const void *data, size_t len, unsigned flags,
              int64_t patience_ms)
{
    struct call c;
    int r = write_check(store, key);

    if (r < 0)
        return r;
    call_begin(&c, store, "PUT", key, patience_ms);
    do {
        r = call_try(&c, &store->count->put);
        if (r < 0)
            return r;
        r = store->backend.ops->put(store->backend.self, key, data, len, flags, &c.err);
    } while (call_again(&c, &r));
    if (r == 0 || r == -EEXIST)
        store->count->bytes_up += len;
    return r;
}

/* Between a backend and the caller's sink: counts what was taken, so that the next try goes on
 * there, and tells the sink's own error from the transfer's. */
struct transfer {
    struct store *store;
    store_sink *sink;
    void *ctx;
    uint64_t len, taken;
    int sink_error;
};

static int transfer_sink(void *ctx, const void *data, size_t len)
{
    struct transfer *t = ctx;

    INVARIANT(len <= t->len - t->taken);
    t->store->count->bytes_down += len;
    t->sink_error = t->sink(t->ctx, data, len);
    if (t->sink_error >= 0) {
        t->sink_error = 0;
        t->taken += len;
    }
    return t->sink_error;
}

/* Gets as much of the range as there is. */
static int get_range(struct store *store, const char *key, uint64_t offset, struct transfer *t,
                     uint64_t *ret_size, int64_t patience_ms)
{
    struct call c;
    uint64_t size = 0, before;
    int r = key_check(store, key, false);

    if (r < 0)
        return r;
    call_begin(&c, store, "GET", key, patience_ms);
    do {
        r = call_try(&c, &store->count->get);
        if (r < 0)
            return r;
        before = t->taken;
        r = store->backend.ops->get(store->backend.self, key, offset + t->taken, t->len - t->taken,
                                    transfer_sink, t, &size, &c.err);
        store->count->get += c.err.hedged;
        store->count->hedged += c.err.hedged;
        if (t->sink_error < 0)
            return t->sink_error;
        if (t->taken > before)
            c.failures = 0;
        if (r < 0 && t->taken == t->len && c.err.fate != STORE_FINAL)
            r = 0; /* failed behind the last byte */
    } while (call_again(&c, &r));
    if (r == 0)
        *ret_size = size;
    return r;
}

int store_get(struct store *store, const char *key, uint64_t offset, uint64_t len, store_sink *sink,
              void *ctx, int64_t patience_ms)
{
    struct transfer t = {.store = store, .sink = sink, .ctx = ctx, .len = len};
    uint64_t size;

    INVARIANT(len > 0);
    int r = get_range(store, key, offset, &t, &size, patience_ms);
    if (r == 0 && t.taken < len)
        return msg_error(-EBADMSG,
                         "%s: GET %s: the object ends at byte %llu, within the range %llu+%llu",
                         store_url(store), key, (unsigned long long)(offset + t.taken),
                         (unsigned long long)offset, (unsigned long long)len);
    return r;
}

static int copy_sink(void *ctx, const void *data, size_t len)
{
    char **at = ctx;

    memcpy(*at, data, len);
    *at += len;
    return 0;
}

int store_get_head(struct store *store, const char *key, void *buf, size_t max, size_t *ret_len,
                   uint64_t *ret_size, int64_t patience_ms)
{
    char *at = buf;
    struct transfer t = {.store = store, .sink = copy_sink, .ctx = &at, .len = max};
    uint64_t size;
    int r = get_range(store, key, 0, &t, &size, patience_ms);

    if (r < 0)
        return r;
    if (size == 0 && t.taken < max)
        size = t.taken; /* it ended there */
    *ret_len = t.taken;
    if (ret_size)
        *ret_size = size;
    return 0;
}

/* One page, with retries. `name` is for messages. */
static int list_page(struct store *store, const char *name, const char *prefix, const char *after,
                     bool dirs, int64_t patience_ms, struct store_page *page)
{
    struct call c;
    int r;

    call_begin(&c, store, "LIST", name, patience_ms);
    do {
        free(page->items);
        memset(page, 0, sizeof *page);
        r = call_try(&c, &store->count->list);
        if (r < 0)
            return r;
        r = store->backend.ops->list(store->backend.self, prefix, after, dirs, page, &c.err);
    } while (call_again(&c, &r));
    return r;
}

static int list(struct store *store, const char *prefix, const char *start_after, bool dirs,
                store_list_fn *fn, void *ctx, int64_t patience_ms)
{
    const char *name = *prefix ? prefix : "(all)";
    struct store_page page = {0};
    char after[STORE_KEY_MAX + 1];
    int r = 0;

    INVARIANT(format(after, sizeof after, "%s", start_after) == 0);
    for (bool more = true; r == 0 && more;) {
        r = list_page(store, name, prefix, after, dirs, patience_ms, &page);
        more = page.more;
        for (size_t i = 0; r == 0 && i < page.nitems; i++) {
            char *key = page.items[i].key;
            size_t len = strnlen(key, STORE_KEY_MAX - 1);

            if (dirs && len && key[len - 1] == '/')
                len--;
            key[len] = 0;
            /* For a directory "name0", which is behind all of "name/…". */
            char next[STORE_KEY_MAX + 1];
            INVARIANT(format(next, sizeof next, "%s%s", key, dirs ? "0" : "") == 0);
            if (strcmp(next, after) <= 0)
                r = msg_error(-EIO, "%s: LIST %s: the store lists \"%s\" out of order",
                              store_url(store), name, key);
            else
                r = fn(ctx, key, page.items[i].size_bytes);
            strcpy(after, next);
        }
        if (r == 0 && more && !page.nitems)
            r = msg_error(-EIO, "%s: LIST %s: the store promises more and lists nothing",
                          store_url(store), name);
    }
    free(page.items);
    return MIN(r, 0);
}

int store_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn,
               void *ctx, int64_t patience_ms)
{
    int r = key_check(store, prefix, true);

    return r < 0 ? r : list(store, prefix, start_after, false, fn, ctx, patience_ms);
}

int store_list_dirs(struct store *store, store_list_fn *fn, void *ctx, int64_t patience_ms)
{
    return list(store, "", "", true, fn, ctx, patience_ms);
}

int store_delete(struct store *store, const char *const *keys, size_t nkeys, int64_t patience_ms)
{
    struct call c;
    int r = 0;

    for (size_t i = 0; r == 0 && i < nkeys; i++)
        r = write_check(store, keys[i]);
    for (size_t i = 0; r == 0 && i < nkeys; i += DELETE_BATCH) {
        call_begin(&c, store, "DELETE", keys[i], patience_ms);
        do {
            r = call_try(&c, &store->count->del);
            if (r < 0)
                return r;
            r = store->backend.ops->del(store->backend.self, keys + i,
                                        MIN(nkeys - i, (size_t)DELETE_BATCH), &c.err);
        } while (call_again(&c, &r));
    }
    return r;
}

int store_new(struct store_backend *backend, const struct clock *clock, struct store **ret_store)
{
    struct store *store = calloc(1, sizeof *store);

    if (!store) {
        backend->ops->free(backend->self);
        return -ENOMEM;
    }
    store->backend = *backend;
    store->clock = clock ? clock : &clock_system;
    store->count = &store->own;
    store->reachable = true;
    pthread_mutex_init(&store->lock, NULL);
    clock_cond_init(&store->wake);
    for (size_t i = 0; i < ARRAY_SIZE(store->warned_ms); i++)
        store->warned_ms[i] = INT64_MIN;
    /* A test's clock brings the seed with it. */
    if (store->clock != &clock_system ||
        getrandom(&store->random, sizeof store->random, 0) != (ssize_t)sizeof store->random)
        store->random = (uint64_t)store->clock->wall_ms();
    store->random |= (uint64_t)1 << 63; /* xorshift never leaves 0 */
    *ret_store = store;
    return 0;
}

/* For those that are opened beside it. */
static int keep_config(struct store *store, const struct store_config *config)
{
    const char **const strings[] = {&store->config.endpoint, &store->config.region,
                                    &store->config.profile, &store->config.ca_file};
    int r = 0;

    store->config = *config;
    store->has_config = true;
    for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
        const char *text = *strings[i];
        if (text && !(*strings[i] = strdup(text)))
            r = -ENOMEM; /* all the others are copied all the same: store_free() frees them */
    }
    return r;
}

int store_open(const struct store_config *config, const char *url_text, struct store **ret_store)
{
    struct store_backend backend = {0};
    struct url url;
    int r = url_parse(url_text, &url);

    if (r == 0)
        r = url.s3 ? s3_open(&url, config, &backend) : dir_open(&url, &backend);
    struct store *store = NULL;
    if (r == 0)
        r = store_new(&backend, config->clock, &store);
    if (r == 0)
        r = keep_config(store, config);
    if (r == 0)
        *ret_store = store;
    else
        store_free(store);
    return r;
}

int store_open_beside(struct store *store, const char *url, struct store **ret_store)
{
    int r = store->open_beside  ? store->open_beside(url, ret_store)
            : store->has_config ? store_open(&store->config, url, ret_store)
                                : -ENOTSUP;

    if (r == 0)
        (*ret_store)->count = store->count;
    return r;
}

void store_forbid_writes(struct store *store)
{
    store->read_only = true;
}

void store_set_beside(struct store *store, store_open_fn *open)
{
    store->open_beside = open;
}

void store_free(struct store *store)
{
    if (!store)
        return;
    store->backend.ops->free(store->backend.self);
    free((char *)store->config.endpoint);
    free((char *)store->config.region);
    free((char *)store->config.profile);
    free((char *)store->config.ca_file);
    pthread_cond_destroy(&store->wake);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

void store_stop(struct store *store)
{
    {
        scope_lock(&store->lock);
        store->stopping = true;
        pthread_cond_broadcast(&store->wake);
    }
    if (store->backend.ops->stop)
        store->backend.ops->stop(store->backend.self);
}

const char *store_url(const struct store *store)
{
    return store->backend.url;
}

void store_get_stats(struct store *store, struct store_stats *ret_stats)
{
    *ret_stats = (struct store_stats){
        .get = store->count->get,
        .put = store->count->put,
        .list = store->count->list,
        .del = store->count->del,
        .failed = store->count->failed,
        .retried = store->count->retried,
        .hedged = store->count->hedged,
        .bytes_up = store->count->bytes_up,
        .bytes_down = store->count->bytes_down,
        .reachable = store->reachable,
    };
}
