#include "ambush.h"
#include "sched.h"

#include "../../cache/volume_internal.h"

#include <errno.h>

int __real_index_mask(struct index *ix, uint64_t chunk, uint64_t *ret_mask);
int __wrap_index_mask(struct index *ix, uint64_t chunk, uint64_t *ret_mask);

int __real_log_claim(struct log *log, struct log_position *pos, uint64_t missing,
                     const uint8_t claim_nonce[UUID_BYTES], const char *who, int64_t patience_ms);
int __wrap_log_claim(struct log *log, struct log_position *pos, uint64_t missing,
                     const uint8_t claim_nonce[UUID_BYTES], const char *who, int64_t patience_ms);
int __real_log_still_ours(struct log *log, int64_t patience_ms);
int __wrap_log_still_ours(struct log *log, int64_t patience_ms);
int __real_volume_append_moves(struct volume *v, struct entry *entries, unsigned nentries,
                               void *buf, size_t len);
int __wrap_volume_append_moves(struct volume *v, struct entry *entries, unsigned nentries,
                               void *buf, size_t len);
int __real_volume_wait_durable(struct volume *v);
int __wrap_volume_wait_durable(struct volume *v);

enum { PATIENCE_US = 3000000, LOOK_US = 20000 };

static struct {
    struct volume *armed;
    int machine;
    uint64_t chunk;
    int64_t read_us, end_us; /* when these begin */
    int64_t outrun_until_us;
    struct volume *mover; /* its moves wait for a flush */
    int64_t meet_us;      /* both go on */
    int met;              /* the machine of one that met */
} ambush = {.met = -1};

void ambush_arm(struct volume *v)
{
    if (sched_now_us() < ambush.end_us)
        return;
    ambush.armed = v;
    ambush.machine = sched_machine();
}

void ambush_disarm(void)
{
    ambush.armed = NULL;
}

/* As a large read would. */
void ambush_evict(struct volume *v)
{
    pthread_mutex_lock(&v->chunks.lock);
    (void)chunks_make_room(&v->chunks, v->chunks.max_blocks);
    pthread_mutex_unlock(&v->chunks.lock);
}

static bool is_unindexed(struct volume *v, uint64_t number)
{
    pthread_mutex_lock(&v->chunks.lock);
    const struct chunk *c = chunks_find(&v->chunks, number);
    bool unindexed = c && c->unindexed;
    pthread_mutex_unlock(&v->chunks.lock);
    return unindexed;
}

void ambush_await_commit(struct volume *v, uint64_t offset)
{
    int64_t until = sched_now_us() + PATIENCE_US;

    while (sched_now_us() < until && !is_unindexed(v, offset / CHUNK_BYTES))
        sched_sleep_us(100);
}

int __wrap_index_mask(struct index *ix, uint64_t chunk, uint64_t *ret_mask)
{
    struct volume *v = ambush.armed;
    int r = __real_index_mask(ix, chunk, ret_mask);

    if (!v || ambush.machine != sched_machine())
        return r;
    ambush.armed = NULL;
    ambush.chunk = chunk;
    ambush.read_us = sched_now_us() + (int64_t)sim_below(10000000);
    ambush.end_us = ambush.read_us + (int64_t)sim_below(5000000);
    sched_sleep_us(ambush.read_us - sched_now_us());
    ambush_evict(v);
    return r;
}

int __wrap_log_claim(struct log *log, struct log_position *pos, uint64_t missing,
                     const uint8_t claim_nonce[UUID_BYTES], const char *who, int64_t patience_ms)
{
    int64_t now = sched_now_us();

    if (now >= ambush.outrun_until_us && sim_chance(1, 8))
        ambush.outrun_until_us = now + (int64_t)sim_below(10000000);
    if (now < ambush.outrun_until_us) {
        sched_sleep_us((int64_t)sim_below(1000000));
        return -EAGAIN;
    }
    return __real_log_claim(log, pos, missing, claim_nonce, who, patience_ms);
}

int __wrap_log_still_ours(struct log *log, int64_t patience_ms)
{
    int r = __real_log_still_ours(log, patience_ms);

    if (r == 0 && sim_chance(1, 4))
        sched_sleep_us((int64_t)sim_below(60000000));
    return r;
}

int __wrap_volume_append_moves(struct volume *v, struct entry *entries, unsigned nentries,
                               void *buf, size_t len)
{
    int64_t until = sched_now_us() + PATIENCE_US;

    if (sim_chance(1, 2)) {
        ambush.mover = v;
        while (ambush.mover == v && sched_now_us() < until)
            sched_sleep_us(LOOK_US);
        if (ambush.mover == v)
            ambush.mover = NULL;
        else
            sched_sleep_us(ambush.meet_us - sched_now_us());
    }
    return __real_volume_append_moves(v, entries, nentries, buf, len);
}

int __wrap_volume_wait_durable(struct volume *v)
{
    if (ambush.mover == v) {
        ambush.mover = NULL;
        ambush.met = sched_machine();
        ambush.meet_us = sched_now_us() + LOOK_US;
        sched_sleep_us(LOOK_US);
    }
    return __real_volume_wait_durable(v);
}

bool ambush_met(void)
{
    bool met = ambush.met == sched_machine();

    if (met)
        ambush.met = -1;
    return met;
}

enum ambush ambush_now(uint64_t *ret_offset)
{
    int64_t now = sched_now_us();

    if (ambush.machine != sched_machine() || now >= ambush.end_us)
        return AMBUSH_NONE;
    *ret_offset = ambush.chunk * CHUNK_BYTES;
    return now < ambush.read_us ? AMBUSH_WRITE : AMBUSH_READ;
}
