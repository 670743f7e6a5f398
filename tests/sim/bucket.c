#include "bucket.h"
#include "sched.h"
#include "watch.h"

#include "../../store/bytes.h"
#include "../../store/log.h"
#include "../../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum { TIMEOUT_US = 10000000, PAGE_KEYS = 7 };
#define DAY_US INT64_C(86400000000)

/* A request that changes something, on its way. Whoever sent it may be gone when it arrives. */
struct request {
    int machine, volume;
    const struct client *sender; /* only to wake it */
    bool done, dropped;
    int result;
    unsigned flags;
    size_t nkeys; /* to delete; 0: put */
    char (*keys)[STORE_KEY_MAX];
    uint8_t *data;
    size_t len;
};

struct client {
    int volume;
    bool direct; /* no network is in between */
    bool stopped;
};

struct weather weather;
void (*bucket_on_request)(void);
void (*bucket_on_change)(int volume, int machine, const char *key, const uint8_t *data);

static struct {
    struct request **under_way;
    size_t nunder_way, under_way_room;
    int64_t outage_until_us;
    uint64_t requests;
    int claimer[VOLUMES], fencer[VOLUMES];
    bool uploaded[MACHINES_MAX];
} bucket;

/* ------------------------------------------------------------------ what is there */

uint64_t bucket_lose_acknowledged(void)
{
    const struct object *end = objects_end(THE_VOLUME);
    uint64_t from = 0, upto = 0, claim = 0, next = 1, seq, lost = 0, seen = 0;

    for (const struct object *o = objects_from(THE_VOLUME, ""); o < end; o++) {
        if ((seq = objects_number(o, "map/")) > 0)
            from = MAX(from, seq + 1);
        if ((seq = objects_number(o, "log/")) == 0)
            continue;
        if (get_le16(o->data + 10) != HEADER_CLAIM) {
            upto = MAX(upto, get_le64(o->data + 80));
        } else if (seq >= next) {
            claim = seq;
            next = get_le64(o->data + 80);
        }
    }
    for (const struct object *o = objects_from(THE_VOLUME, ""); o < end; o++) {
        seq = objects_number(o, "log/");
        bool there = seq == claim || seq >= next; /* in between is garbage */
        if (there && seq >= from && seq < upto && sim_below(++seen) == 0)
            lost = seq;
    }
    char key[STORE_KEY_MAX];
    log_key(lost, key);
    if (lost)
        objects_drop(THE_VOLUME, key);
    return lost;
}

int bucket_claimer(int volume)
{
    return bucket.claimer[volume];
}

int bucket_fencer(int volume)
{
    return bucket.fencer[volume];
}

bool bucket_uploaded(int machine)
{
    return bucket.uploaded[machine];
}

uint64_t bucket_requests(void)
{
    return bucket.requests;
}

/* ------------------------------------------------------------------ the network */

void bucket_outage(int64_t until_us)
{
    bucket.outage_until_us = until_us;
}

static int64_t latency(void)
{
    int64_t us = (int64_t)sim_below((uint64_t)weather.latency_us + 1);

    return sim_chance(1, 20) ? us * 20 : us;
}

static int fault(struct store_error *err, enum store_fate fate, const char *text)
{
    err->fate = fate;
    (void)snprintf(err->text, sizeof err->text, "%s", text);
    return -EIO;
}

/* False: stopped meanwhile. */
static bool wait_us(struct client *c, int64_t us)
{
    int64_t until = sched_now_us() + us;

    while (!c->stopped && sched_now_us() < until)
        sched_block(c, until);
    return !c->stopped;
}

static int time_out(struct client *c, struct store_error *err)
{
    return wait_us(c, TIMEOUT_US) ? fault(err, STORE_RETRY, "no answer") : -ECANCELED;
}

/* The way there, of a request that changes nothing. */
static int there(struct client *c, struct store_error *err)
{
    if (c->direct)
        return 0;
    bucket_on_request();
    bucket.requests++;
    if (sim_chance(weather.busy, 1000))
        return wait_us(c, latency()) ? fault(err, STORE_SLOW, "slow down") : -ECANCELED;
    if (sched_now_us() < bucket.outage_until_us || sim_chance(weather.lost, 1000))
        return time_out(c, err);
    return wait_us(c, latency()) ? 0 : -ECANCELED;
}

static void forget(struct request *rq)
{
    for (size_t i = 0; i < bucket.nunder_way; i++)
        if (bucket.under_way[i] == rq)
            bucket.under_way[i] = bucket.under_way[--bucket.nunder_way];
}

static bool is_kind(const struct request *rq, enum header_kind kind)
{
    return rq->nkeys == 0 && strncmp(rq->keys[0], "log/", 4) == 0 &&
           get_le16(rq->data + 10) == kind;
}

static void carry_out_put(struct request *rq)
{
    const char *key = rq->keys[0];

    if (rq->flags & STORE_IF_ABSENT && objects_find(rq->volume, key)) {
        rq->result = -EEXIST;
        return;
    }
    objects_set(rq->volume, key, rq->data, rq->len);
    if (is_kind(rq, HEADER_CLAIM)) {
        bucket.fencer[rq->volume] = rq->machine;
        if (!(get_le32(rq->data + 12) & HEADER_AHEAD))
            bucket.claimer[rq->volume] = rq->machine;
    }
    watch_put(rq->volume, key);
    bucket_on_change(rq->volume, rq->machine, key, rq->data);
}

static void carry_out_delete(const struct request *rq)
{
    for (size_t i = 0; i < rq->nkeys; i++) {
        watch_delete(rq->volume, rq->keys[i]);
        objects_drop(rq->volume, rq->keys[i]);
        bucket_on_change(rq->volume, rq->machine, rq->keys[i], NULL);
    }
}

static void arrive(void *arg)
{
    struct request *rq = arg;

    rq->done = true;
    forget(rq);
    if (rq->dropped)
        return;
    if (rq->nkeys > 0)
        carry_out_delete(rq);
    else
        carry_out_put(rq);
    sched_note(rq->len);
    sched_wake(rq->sender);
}

void bucket_forget_process(int machine)
{
    for (size_t i = 0; i < bucket.nunder_way; i++)
        if (bucket.under_way[i]->machine == machine)
            bucket.under_way[i]->dropped = sim_chance(1, 2);
}

/* When it arrives; 0: never. Checkpoints fail more often, since what they do then is seldom seen.
 */
static int64_t arrival(const struct request *rq)
{
    int64_t now = sched_now_us();
    bool log = strncmp(rq->keys[0], "log/", 4) == 0;

    if (sim_chance(weather.lost > 0 && !log ? weather.lost + 200 : weather.lost, 1000))
        return 0;
    if (sim_chance(weather.late, 1000))
        return now + (int64_t)sim_below(sim_chance(1, 2) ? DAY_US : 4 * TIMEOUT_US);
    if (now < bucket.outage_until_us)
        return sim_chance(1, 4) ? bucket.outage_until_us + latency() : 0;
    int64_t at = now + latency();
    return MAX(at, 1); /* 0 is never */
}

/* Sends it, and waits for the answer. */
static int send(struct client *c, struct request *rq, struct store_error *err)
{
    int64_t at = arrival(rq), give_up = sched_now_us() + TIMEOUT_US;

    if (c->direct)
        sim_fail("%s: a look changes something", rq->keys[0]);
    bucket_on_request();
    bucket.requests++;
    rq->machine = sched_machine();
    rq->volume = c->volume;
    if (is_kind(rq, HEADER_SEGMENT))
        bucket.uploaded[rq->machine] = true;
    rq->sender = c;
    if (sim_chance(weather.busy, 1000))
        return wait_us(c, latency()) ? fault(err, STORE_SLOW, "slow down") : -ECANCELED;
    if (at == 0)
        return time_out(c, err);
    if (bucket.nunder_way == bucket.under_way_room) {
        bucket.under_way_room = 2 * bucket.under_way_room + 64;
        bucket.under_way =
            realloc(bucket.under_way, bucket.under_way_room * sizeof *bucket.under_way);
    }
    bucket.under_way[bucket.nunder_way++] = rq;
    sched_at(at, arrive, rq);
    while (!rq->done && !c->stopped && sched_now_us() < give_up)
        sched_block(c, give_up);
    if (c->stopped)
        return -ECANCELED;
    if (!rq->done)
        return fault(err, STORE_RETRY, "no answer");
    if (sim_chance(weather.answer_lost, 1000))
        return time_out(c, err);
    return wait_us(c, latency()) ? rq->result : -ECANCELED;
}

/* ------------------------------------------------------------------ the backend */

static int op_put(void *self, const char *key, const void *data, size_t len, unsigned flags,
                  struct store_error *err)
{
    struct request *rq = calloc(1, sizeof *rq); /* never freed: it may arrive whenever it likes */

    rq->keys = calloc(1, sizeof *rq->keys);
    (void)snprintf(rq->keys[0], sizeof rq->keys[0], "%s", key);
    rq->data = malloc(len + 1);
    memcpy(rq->data, data, len);
    rq->data[len] = 0;
    rq->len = len;
    rq->flags = flags;
    return send(self, rq, err);
}

static int op_del(void *self, const char *const *keys, size_t nkeys, struct store_error *err)
{
    struct request *rq = calloc(1, sizeof *rq);

    rq->keys = calloc(nkeys, sizeof *rq->keys);
    rq->nkeys = nkeys;
    for (size_t i = 0; i < nkeys; i++)
        (void)snprintf(rq->keys[i], sizeof rq->keys[i], "%s", keys[i]);
    return send(self, rq, err);
}

static int op_get(void *self, const char *key, uint64_t offset, uint64_t len, store_sink *sink,
                  void *ctx, uint64_t *ret_size, struct store_error *err)
{
    struct client *c = self;
    int r = there(c, err);
    const struct object *o = objects_find(c->volume, key);

    if (r < 0 || !o)
        return r < 0 ? r : -ENOENT;
    if (c->direct) {
        *ret_size = o->len;
        return offset < o->len ? sink(ctx, o->data + offset, MIN(len, o->len - offset)) : 0;
    }
    if (sim_chance(weather.answer_lost, 1000))
        return time_out(c, err);
    uint64_t n = offset < o->len ? MIN(len, o->len - offset) : 0;
    scope_free uint8_t *copy = malloc(n + 1);
    bool cut = n > 0 && sim_chance(weather.cut, 1000);
    if (n > 0)
        memcpy(copy, o->data + offset, n);
    *ret_size = o->len;
    for (uint64_t done = 0, to = cut ? sim_below(n) : n; done < to && r == 0;) {
        uint64_t some = 1 + sim_below(65536), piece = MIN(to - done, some);
        if (!wait_us(c, latency() / 16))
            return -ECANCELED;
        r = sink(ctx, copy + done, piece);
        done += piece;
    }
    return r == 0 && cut ? fault(err, STORE_RETRY, "the body ended early") : r;
}

static int op_list(void *self, const char *prefix, const char *start_after, bool dirs,
                   struct store_page *page, struct store_error *err)
{
    struct client *c = self;
    int r = there(c, err);

    if (dirs)
        sim_fail("nobody lists directories here");
    if (r < 0)
        return r;
    page->items = calloc(PAGE_KEYS, sizeof *page->items);
    const struct object *o = objects_from(c->volume, prefix), *end = objects_end(c->volume);
    for (; o < end; o++) {
        if (strncmp(o->key, prefix, strlen(prefix)) != 0)
            break;
        if (strcmp(o->key, start_after) <= 0)
            continue;
        page->more = page->nitems == PAGE_KEYS;
        if (page->more)
            break;
        (void)snprintf(page->items[page->nitems].key, STORE_KEY_MAX, "%s", o->key);
        page->items[page->nitems++].size_bytes = o->len;
    }
    return c->direct || wait_us(c, latency()) ? 0 : -ECANCELED;
}

static void op_stop(void *self)
{
    struct client *c = self;

    c->stopped = true;
    sched_wake(c);
}

static const char *const urls[VOLUMES] = {"s3://bucket/volume", "s3://bucket/clone"};

static struct store *new_store(int volume, bool direct);

static int open_beside(const char *url, bool direct, struct store **ret)
{
    for (int i = 0; i < VOLUMES; i++)
        if (strcmp(url, urls[i]) == 0)
            return *ret = new_store(i, direct), 0;
    sim_fail("%s: there is no such volume here", url);
}

static int beside(const char *url, struct store **ret)
{
    return open_beside(url, false, ret);
}

static int beside_directly(const char *url, struct store **ret)
{
    return open_beside(url, true, ret);
}

static struct store *new_store(int volume, bool direct)
{
    static const struct store_ops ops = {op_put, op_get, op_list, op_del, op_stop, free};
    struct client *c = calloc(1, sizeof *c);
    struct store_backend backend = {.ops = &ops, .self = c};
    struct store *store;

    *c = (struct client){.volume = volume, .direct = direct};
    (void)snprintf(backend.url, sizeof backend.url, "%s", urls[volume]);
    if (store_new(&backend, &sim_clock, &store) < 0)
        sim_fail("no store");
    store_set_beside(store, direct ? beside_directly : beside);
    return store;
}

struct store *bucket_store(int volume)
{
    return new_store(volume, false);
}

struct store *bucket_look(int volume)
{
    return new_store(volume, true);
}

int bucket_volume(const char *url)
{
    return strcmp(url, urls[THE_VOLUME]) == 0 ? THE_VOLUME : THE_CLONE;
}
