/*
 * Objects: named byte strings under one volume's prefix, in a directory or in S3, behind one table
 * of functions. This module adds what both need: retries, counters, stopping.
 *
 * Keys are relative to the volume ("log/0000000000000001"), of the characters [A-Za-z0-9._/-].
 * All calls block, are safe from any thread at once, and return 0 or a negative errno:
 *
 *   -ENOENT      there is no such object
 *   -EEXIST      STORE_IF_ABSENT, and it is there (perhaps by our own lost first try: the caller
 *                reads it and knows its own nonce)
 *   -EBADMSG     the object is shorter than the range that was asked for
 *   -EACCES      refused: wrong key, denied, clock skew
 *   -ETIMEDOUT   not reached, or no good answer, within the patience (or refused, where it insists)
 *   -ECANCELED   store_stop() was called
 *   -EIO, …      anything else, final
 *
 * -ENOENT, -EEXIST, -ECANCELED and what a sink or list function returned travel silently; every
 * other failure was reported by msg_error() already.
 */
#ifndef S3VOL_STORE_H
#define S3VOL_STORE_H

#include "clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

/* How long a call may go on retrying, in ms from its start. A refusal ends it at once, so that a
 * command says so; but not `STORE_INSIST | ms`, nor STORE_FOREVER, which insists: credentials are
 * renewed, clocks set, directories mounted again. */
#define STORE_INSIST  (INT64_C(1) << 62)
#define STORE_FOREVER INT64_MAX

enum { STORE_KEY_MAX = 128, STORE_URL_MAX = 1024 };

enum addressing { ADDRESSING_AUTO, ADDRESSING_PATH, ADDRESSING_VIRTUAL };

/* What the user may choose; strings are borrowed for the call of store_open() only and may be NULL,
 * which means: from the environment and the shared config files, as every AWS tool does it. */
struct store_config {
    const char *endpoint; /* "http://127.0.0.1:8000" */
    const char *region;
    const char *profile;
    const char *ca_file; /* PEM, instead of the system's */
    enum addressing addressing;
    unsigned connections;       /* kept open at most; 0: 16 */
    int64_t connect_timeout_ms; /* 0: 5000 */
    int64_t stall_timeout_ms;   /* no byte moved for so long: the request failed; 0: 10000 */
    const struct clock *clock;  /* NULL: clock_system; must outlive the store */
};

/* Opens the objects below the volume `url` (see url.h). Makes no request. Only one line of error
 * was printed when this fails. */
int store_open(const struct store_config *config, const char *url, struct store **ret_store);

/* The same over another table of functions (below); takes ownership of `backend`. For tests. */
struct store_backend;
int store_new(struct store_backend *backend, const struct clock *clock, struct store **ret_store);

/* Opens another volume's objects with the same credentials, endpoint and clock: a clone's base. Its
 * requests count as those of `store`, which must outlive it. */
int store_open_beside(struct store *store, const char *url, struct store **ret_store);
/* How that is done for one that store_new() made. For tests. */
typedef int store_open_fn(const char *url, struct store **ret_store);
void store_set_beside(struct store *store, store_open_fn *open);

/* From now on whatever would change something is refused, without a request. */
void store_forbid_writes(struct store *store);

/* All calls must have returned. */
void store_free(struct store *store);

/* Lets every call under way, and every later one, end soon with -ECANCELED. */
void store_stop(struct store *store);

enum { STORE_IF_ABSENT = 1 };

/* Stores `len` bytes under `key`, atomically: a reader sees all or nothing, and when this returns 0
 * they are durable. */
int store_put(struct store *store, const char *key, const void *data, size_t len, unsigned flags,
              int64_t patience_ms);

/* Receives a range piece by piece, in order, each byte once, whatever was retried in between; a
 * negative return ends the transfer and becomes store_get()'s. Runs on the caller's thread. */
typedef int store_sink(void *ctx, const void *data, size_t len);

/* Reads `len` bytes at `offset`, len > 0. -EBADMSG if the object ends before. */
int store_get(struct store *store, const char *key, uint64_t offset, uint64_t len, store_sink *sink,
              void *ctx, int64_t patience_ms);

/* Reads at most `max` bytes from the object's beginning into `buf`: *ret_len of them, fewer when
 * the object is shorter. *ret_size (may be NULL) is the size of the whole object; 0 if it has `max`
 * bytes at least and the store did not say how many. */
int store_get_head(struct store *store, const char *key, void *buf, size_t max, size_t *ret_len,
                   uint64_t *ret_size, int64_t patience_ms);

/* Calls `fn` for every key that begins with `prefix` and sorts after `start_after` ("" for all), in
 * order of bytes. A negative return of `fn` ends it and becomes the result. The store is asked page
 * by page, and the patience is for each of them. */
typedef int store_list_fn(void *ctx, const char *key, uint64_t size_bytes);
int store_list(struct store *store, const char *prefix, const char *start_after, store_list_fn *fn,
               void *ctx, int64_t patience_ms);

/* The names of the "directories" directly below the store's URL, without slash, size 0. */
int store_list_dirs(struct store *store, store_list_fn *fn, void *ctx, int64_t patience_ms);

/* Deletes the objects; one that is not there is no error. */
int store_delete(struct store *store, const char *const *keys, size_t nkeys, int64_t patience_ms);

/* The URL as given, without secrets, for messages. */
const char *store_url(const struct store *store);

/* Counters since store_open(), of those opened beside it included. */
struct store_stats {
    uint64_t get, put, head, list, del; /* requests sent, retries included */
    uint64_t failed;                    /* of these, those that failed (misses do not count) */
    uint64_t retried;
    uint64_t hedged; /* gets that were sent a second time, as no answer had begun for long */
    uint64_t bytes_up, bytes_down; /* bodies */
    bool reachable; /* the newest request was answered, and was no refusal that is insisted on */
};
void store_get_stats(struct store *store, struct store_stats *ret_stats);

/* ------------------------------------------------------------------ for backends and wrappers */

/* How one try ended, for the retry loop. */
enum store_fate {
    STORE_FINAL,   /* asking again would not help */
    STORE_RETRY,   /* passing: connection, timeout, 5xx, short body */
    STORE_SLOW,    /* "slow down": 503, 429: back off longer */
    STORE_REFUSED, /* 401/403: final, but for who insists */
};

struct store_error {
    enum store_fate fate;
    char text[384]; /* what happened and what to do, for people; names no key */
    bool hedged;    /* however it ended: the request was sent twice at once */
};

struct store_page {
    struct {
        char key[STORE_KEY_MAX];
        uint64_t size_bytes;
    } * items; /* malloc'ed by the backend, freed by the caller, also after an error */
    size_t nitems;
    bool more; /* ask again, after the last item */
};

/* One try each, no retries, no counting. Return as above; fill *err on failures other than -ENOENT
 * and -EEXIST. */
struct store_ops {
    int (*put)(void *self, const char *key, const void *data, size_t len, unsigned flags,
               struct store_error *err);
    /* `*ret_size` is the whole object's size, or 0 if the backend was not told. When the object
     * ends before offset + len: calls the sink with what there is, and returns 0. */
    int (*get)(void *self, const char *key, uint64_t offset, uint64_t len, store_sink *sink,
               void *ctx, uint64_t *ret_size, struct store_error *err);
    /* With `dirs`: the common prefixes up to the next '/', instead of the keys. */
    int (*list)(void *self, const char *prefix, const char *start_after, bool dirs,
                struct store_page *page, struct store_error *err);
    int (*del)(void *self, const char *const *keys, size_t nkeys, struct store_error *err);
    void (*stop)(void *self); /* may be NULL */
    void (*free)(void *self);
};

struct store_backend {
    const struct store_ops *ops;
    void *self;
    char url[STORE_URL_MAX];
};

/* The two backends (dir.c, s3.c). */
struct url;
int dir_open(const struct url *url, struct store_backend *ret_backend);
int s3_open(const struct url *url, const struct store_config *config,
            struct store_backend *ret_backend);

#endif
