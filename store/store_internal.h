/*
 * What store.c (the calls) and call.c (their retries) share.
 *
 * A call is one use of the API: any number of tries, with waits between them, until an answer, a
 * final failure, the end of its patience, or store_stop(). Threads: every caller's own; the lock is
 * never held over a try or a message.
 */
#ifndef S3VOL_STORE_INTERNAL_H
#define S3VOL_STORE_INTERNAL_H

#include "store.h"

#include <pthread.h>
#include <stdatomic.h>

/* Shared with the stores that are opened beside one. */
struct counters {
    atomic_uint_fast64_t get, put, list, del, failed, retried, hedged, bytes_up, bytes_down;
};

struct store {
    struct store_backend backend;
    const struct clock *clock;
    struct store_config config; /* of store_open(): the strings are ours */
    bool has_config;
    store_open_fn *open_beside;
    struct counters own, *count; /* count: own, or those of the one it was opened beside */
    atomic_bool reachable, stopping;
    atomic_bool read_only;
    atomic_bool troubled; /* a warning was printed, and no answer came since */
    pthread_mutex_t lock; /* guards what follows, and the setting of `stopping` */
    pthread_cond_t wake;  /* stopping */
    uint64_t random;
    int64_t
        warned_ms[STORE_REFUSED + 1]; /* when each kind of failure was last told, or INT64_MIN */
};

struct call {
    struct store *store;
    const char *verb, *key; /* borrowed; for messages */
    int64_t start_ms, deadline_ms;
    bool insists;
    unsigned failures; /* in a row; the caller sets it to 0 when a failed try made progress */
    struct store_error err;
};

void call_begin(struct call *call, struct store *store, const char *verb, const char *key,
                int64_t patience_ms);

/* Before each try: counts it in `counter` (one of the store's) and clears `err`; -ECANCELED when
 * the store is stopping. */
int call_try(struct call *call, atomic_uint_fast64_t *counter);

/* After each try, with its result in *r: true to try again (it has waited); false when *r is the
 * call's result, reported as store.h says. The last try is made at the end of the patience, so a
 * call takes at most that and one try. */
bool call_again(struct call *call, int *r);

#endif
