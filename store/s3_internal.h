/*
 * What the files of the S3 backend share: the bucket, and one signed request. Each operation of
 * struct store_ops is one request (batches apart); retrying is the caller's.
 */
#ifndef S3VOL_S3_INTERNAL_H
#define S3VOL_S3_INTERNAL_H

#include "credentials.h"
#include "endpoint.h"
#include "http.h"
#include "s3error.h"
#include "sigv4.h"
#include "store.h"
#include "url.h"

#include <stdatomic.h>

enum { S3_KEY_SIZE = URL_PART_MAX + STORE_KEY_MAX + 8 }; /* volume prefix, '/', our key, NUL */

/* Constant once open, but for no_batch_delete. */
struct s3 {
    struct http *http;
    struct credentials_source *credentials;
    const struct clock *clock;
    struct endpoint endpoint;
    struct s3error_place place; /* points into this struct */
    char bucket[64];
    char region[64];
    char prefix[URL_PART_MAX + 2]; /* with a '/' at its end, or "" */
    atomic_bool no_batch_delete;   /* the server said that it has none, or OpenSSL has no MD5 */
};

/* One request, before it is signed. */
struct s3_call {
    const char *method;
    const char *key; /* relative to the volume; NULL: the bucket itself */
    enum s3error_op op;
    struct sigv4_pair query[6];
    size_t nquery;
    struct sigv4_pair headers[3]; /* those that are not in every request */
    size_t nheaders;
    const void *body;
    size_t body_len;
    http_on_body *on_body;
    void *ctx;

    struct http_answer answer; /* what came of it; freed by s3_call_end() */
    int64_t wall_s;            /* when it was signed */
};

/* Header and parameter are borrowed until the call is sent. */
void s3_call_header(struct s3_call *call, const char *name, const char *value);
void s3_call_query(struct s3_call *call, const char *name, const char *value);

/* Signs and sends it, and waits for the answer. 0: there is something in call->answer to look at;
 * otherwise nothing was sent, and *err says why. Then s3_call_end() in both cases. */
int s3_call_send(struct s3 *s3, struct s3_call *call, struct store_error *err);
void s3_call_end(struct s3_call *call);

bool s3_call_answered(const struct s3_call *call, int status);
/* What an answer means that was not the one hoped for; as s3error_from_answer(). */
int s3_call_judge(struct s3 *s3, const struct s3_call *call, struct store_error *err);

/* The operations, as in struct store_ops. */
int s3_get(void *self, const char *key, uint64_t offset, uint64_t len, store_sink *sink, void *ctx,
           uint64_t *ret_size, struct store_error *err);
int s3_list(void *self, const char *prefix, const char *start_after, bool dirs,
            struct store_page *page, struct store_error *err);
int s3_delete(void *self, const char *const *keys, size_t nkeys, struct store_error *err);

#endif
