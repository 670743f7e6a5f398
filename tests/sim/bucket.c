#include "bucket.h"
#include "sched.h"

#include "../../store/bytes.h"
#include "../../store/log.h"
#include "../../store/scope.h"

#include <inttypes.h>
#include <string.h>

enum { TIMEOUT_US = 10000000, PAGE_KEYS = 7, KEYS_MAX = 1000, PART_ROW_BYTES = 32 };
#define DAY_US INT64_C(86400000000)

struct object {
    char key[STORE_KEY_MAX];
    uint8_t *data;
    size_t len;
    bool late; /* a checkpoint's root that was replaced before it was there */
};

/* A request that changes something, on its way. Whoever sent it may be gone when it arrives. */
struct request {
    int machine;
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
    bool stopped;
};

struct weather weather;

static struct {
    struct object *objects; /* by key */
    size_t n, room;
    struct request **under_way;
    size_t nunder_way, under_way_room;
    int64_t outage_until_us;
    uint64_t requests;
    int claimer;
    bool uploaded[MACHINES_MAX];
} bucket;

/* ------------------------------------------------------------------ objects */

/* The first object whose key is not less. */
static size_t place_of(const char *key)
{
    size_t from = 0, to = bucket.n;

    while (from < to) {
        size_t mid = (from + to) / 2;
        if (strcmp(bucket.objects[mid].key, key) < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

static struct object *find(const char *key)
{
    size_t i = place_of(key);

    return i < bucket.n && strcmp(bucket.objects[i].key, key) == 0 ? &bucket.objects[i] : NULL;
}

/* `data` is its own from now on. */
static void set(const char *key, uint8_t *data, size_t len)
{
    struct object *o = find(key);

    if (!o) {
        size_t at = place_of(key);
        if (bucket.n == bucket.room) {
            bucket.room = 2 * bucket.room + 64;
            bucket.objects = realloc(bucket.objects, bucket.room * sizeof *bucket.objects);
        }
        o = &bucket.objects[at];
        memmove(o + 1, o, (bucket.n++ - at) * sizeof *o);
        *o = (struct object){0};
        (void)snprintf(o->key, sizeof o->key, "%s", key);
    }
    free(o->data);
    o->data = data;
    o->len = len;
}

static void drop(const char *key)
{
    struct object *o = find(key);

    if (!o)
        return;
    free(o->data);
    memmove(o, o + 1, (size_t)(bucket.objects + --bucket.n - o) * sizeof *o);
}

size_t bucket_count(const char *prefix)
{
    size_t n = 0;

    for (size_t i = place_of(prefix); i < bucket.n; i++, n++)
        if (strncmp(bucket.objects[i].key, prefix, strlen(prefix)) != 0)
            break;
    return n;
}

/* "log/0000000000000001": 1; 0: not below `prefix`. */
static uint64_t number_of(const struct object *o, const char *prefix)
{
    return strncmp(o->key, prefix, strlen(prefix)) == 0
               ? strtoull(o->key + strlen(prefix), NULL, 16)
               : 0;
}

uint64_t bucket_lose_acknowledged(void)
{
    uint64_t from = 0, upto = 0, claim = 0, seq, lost = 0;

    for (size_t i = 0; i < bucket.n; i++) {
        const struct object *o = &bucket.objects[i];
        if ((seq = number_of(o, "map/")) > 0)
            from = MAX(from, seq + 1);
        if ((seq = number_of(o, "log/")) == 0)
            continue;
        if (get_le16(o->data + 10) == HEADER_CLAIM)
            claim = seq;
        else
            upto = MAX(upto, get_le64(o->data + 80));
    }
    for (size_t i = 0, seen = 0; i < bucket.n; i++) {
        seq = number_of(&bucket.objects[i], "log/");
        bool there = seq == claim || seq > claim + LOG_WINDOW; /* in between is garbage */
        if (there && seq >= from && seq < upto && sim_below(++seen) == 0)
            lost = seq;
    }
    char key[STORE_KEY_MAX];
    log_key(lost, key);
    if (lost)
        drop(key);
    return lost;
}

int bucket_claimer(void)
{
    return bucket.claimer;
}

bool bucket_uploaded(int machine)
{
    return bucket.uploaded[machine];
}

uint64_t bucket_requests(void)
{
    return bucket.requests;
}

/* ------------------------------------------------------------------ checkpoints are whole */

static void part_key(const uint8_t *row, char key[STORE_KEY_MAX])
{
    (void)snprintf(key, STORE_KEY_MAX, "part/%016" PRIx64 ".%08" PRIx32, get_le64(row + 8),
                   get_le32(row + 16));
}

/* A root was stored. The copy of a request that arrives when there is a newer one harms nobody. */
static void judge_root(const char *key)
{
    struct object *root = find(key);
    char part[STORE_KEY_MAX];

    root->late = root + 1 < bucket.objects + bucket.n && number_of(root + 1, "map/") > 0;
    for (size_t at = HEADER_BYTES; !root->late && at < root->len; at += PART_ROW_BYTES) {
        part_key(root->data + at, part);
        if (!find(part))
            sim_fail("%s is stored, and %s of it is not there", key, part);
    }
}

/* A part is to be deleted. */
static void judge_deletion(const char *key)
{
    char part[STORE_KEY_MAX];

    for (size_t i = place_of("map/"); find(key) && i < bucket.n; i++) {
        const struct object *root = &bucket.objects[i];
        if (number_of(root, "map/") == 0)
            break;
        for (size_t at = HEADER_BYTES; !root->late && at < root->len; at += PART_ROW_BYTES) {
            part_key(root->data + at, part);
            if (strcmp(part, key) == 0)
                sim_fail("%s is deleted, but it is of %s, which is there", key, root->key);
        }
    }
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
    if (rq->flags & STORE_IF_ABSENT && find(rq->keys[0])) {
        rq->result = -EEXIST;
        return;
    }
    set(rq->keys[0], rq->data, rq->len);
    if (is_kind(rq, HEADER_CLAIM))
        bucket.claimer = rq->machine;
    if (strncmp(rq->keys[0], "map/", 4) == 0)
        judge_root(rq->keys[0]);
}

static void carry_out_delete(const struct request *rq)
{
    for (size_t i = 0; i < rq->nkeys; i++) {
        if (strncmp(rq->keys[i], "part/", 5) == 0)
            judge_deletion(rq->keys[i]);
        drop(rq->keys[i]);
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
    return now + latency();
}

/* Sends it, and waits for the answer. */
static int send(struct client *c, struct request *rq, struct store_error *err)
{
    int64_t at = arrival(rq), give_up = sched_now_us() + TIMEOUT_US;

    bucket.requests++;
    rq->machine = sched_machine();
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
    const struct object *o = find(key);

    if (r < 0 || !o)
        return r < 0 ? r : -ENOENT;
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
    for (size_t i = place_of(prefix); i < bucket.n; i++) {
        const struct object *o = &bucket.objects[i];
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
    return wait_us(c, latency()) ? 0 : -ECANCELED;
}

static void op_stop(void *self)
{
    struct client *c = self;

    c->stopped = true;
    sched_wake(c);
}

struct store *bucket_store(void)
{
    static const struct store_ops ops = {op_put, op_get, op_list, op_del, op_stop, free};
    struct client *c = calloc(1, sizeof *c);
    struct store_backend backend = {.ops = &ops, .self = c, .url = "sim://bucket/volume"};
    struct store *store;

    if (store_new(&backend, &sim_clock, &store) < 0)
        sim_fail("no store");
    return store;
}
