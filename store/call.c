#include "store_internal.h"

#include "msg.h"
#include "scope.h"

#include <string.h>

enum { WARN_INTERVAL_MS = 60000 };

/* How long to wait after the nth failure in a row: at random between `least` and the smaller of
 * base * 2^n and cap. */
static const struct {
    int64_t least_ms, base_ms, cap_ms;
} backoff[STORE_REFUSED + 1] = {
    [STORE_RETRY] = {0, 100, 10000},
    [STORE_SLOW] = {0, 500, 20000},
    [STORE_REFUSED] = {5000, 5000, 30000},
};

void call_begin(struct call *c, struct store *store, const char *verb, const char *key,
                int64_t patience_ms)
{
    int64_t now = store->clock->now_ms();

    memset(c, 0, sizeof *c);
    c->store = store;
    c->verb = verb;
    c->key = key;
    c->start_ms = now;
    c->insists = patience_ms & STORE_INSIST;
    patience_ms = patience_ms == STORE_FOREVER ? STORE_FOREVER : patience_ms & ~STORE_INSIST;
    c->deadline_ms = patience_ms > INT64_MAX - now ? INT64_MAX : now + patience_ms;
}

int call_try(struct call *c, atomic_uint_fast64_t *counter)
{
    if (c->store->stopping)
        return -ECANCELED;
    c->err = (struct store_error){.fate = STORE_FINAL};
    (*counter)++;
    if (c->failures)
        c->store->count->retried++;
    return 0;
}

static int64_t backoff_ms_locked(struct store *store, enum store_fate fate, unsigned nfailures)
{
    int64_t most = backoff[fate].base_ms << MIN(nfailures, 20u);
    uint64_t span = (uint64_t)(MIN(most, backoff[fate].cap_ms) - backoff[fate].least_ms) + 1;

    store->random ^= store->random << 13; /* xorshift64 (Marsaglia) */
    store->random ^= store->random >> 7;
    store->random ^= store->random << 17;
    return backoff[fate].least_ms + (int64_t)(store->random % span);
}

/* Tells of trouble once, and then once a minute, however many calls are in it. */
static void warn_of(struct call *c, int64_t now)
{
    struct store *store = c->store;
    {
        scope_lock(&store->lock);
        int64_t *warned_ms = &store->warned_ms[c->err.fate];
        if (*warned_ms != INT64_MIN && now - *warned_ms < WARN_INTERVAL_MS)
            return;
        *warned_ms = now;
    }
    store->troubled = true;
    msg_warn("%s: %s %s: %s; retrying", store_url(store), c->verb, c->key, c->err.text);
}

static void answered(struct store *store)
{
    store->reachable = true;
    if (store->troubled && atomic_exchange(&store->troubled, false))
        msg_info("%s: the store answers again", store_url(store));
}

/* Sleeps before the next try, not beyond the deadline. */
static int call_wait(struct call *c, int64_t now)
{
    struct store *store = c->store;

    scope_lock(&store->lock);
    int64_t until = now + backoff_ms_locked(store, c->err.fate, c->failures++);
    until = MIN(until, c->deadline_ms);
    while (!store->stopping && store->clock->now_ms() < until)
        store->clock->wait_until(&store->wake, &store->lock, until);
    return store->stopping ? -ECANCELED : 0;
}

bool call_again(struct call *c, int *r)
{
    struct store *store = c->store;

    if (*r >= 0 || *r == -ENOENT || *r == -EEXIST) {
        answered(store);
        return false;
    }
    if (store->stopping) {
        *r = -ECANCELED;
        return false;
    }
    if (!c->err.text[0])
        (void)snprintf(c->err.text, sizeof c->err.text, "%s", strerror(-*r));
    enum store_fate fate = c->err.fate;
    int64_t now = store->clock->now_ms();
    bool passing =
        fate == STORE_RETRY || fate == STORE_SLOW || (fate == STORE_REFUSED && c->insists);

    store->count->failed++;
    store->reachable = !passing;
    if (passing && now < c->deadline_ms) {
        warn_of(c, now);
        *r = call_wait(c, now);
        return *r == 0;
    }
    if (passing)
        *r = msg_error(-ETIMEDOUT, "%s: %s %s: gave up after %lld s: %s", store_url(store), c->verb,
                       c->key, (long long)(now - c->start_ms + 500) / 1000, c->err.text);
    else
        msg_error(*r, "%s: %s %s: %s", store_url(store), c->verb, c->key, c->err.text);
    return false;
}
