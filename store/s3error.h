/*
 * What an answer from S3 means, for the retry loop and for people: errno, fate, and one line of
 * text. Pure.
 */
#ifndef S3VOL_S3ERROR_H
#define S3VOL_S3ERROR_H

#include "http.h"
#include "store.h"

/* Whom we asked; for the texts. */
struct s3error_place {
    const char *bucket, *endpoint, *region;
    const char *credentials; /* where they came from */
    int64_t stall_timeout_ms;
};

enum s3error_op {
    S3ERROR_GET,
    S3ERROR_PUT,
    S3ERROR_PUT_IF_ABSENT,
    S3ERROR_LIST,
    S3ERROR_DELETE,
};

/* The answer is one that does not tell of success. `wall_s` is this machine's time in the request.
 * Fills *ret_error but for -ENOENT (a GET's or DELETE's key) and -EEXIST (S3ERROR_PUT_IF_ABSENT).
 */
int s3error_from_answer(const struct s3error_place *place, enum s3error_op op,
                        const struct http_answer *answer, int64_t wall_s,
                        struct store_error *ret_error);

/* The same from the code and message that the answer to a batch delete has for one key. */
int s3error_from_code(const struct s3error_place *place, const char *code, const char *message,
                      struct store_error *ret_error);

/* Fills *ret_error and returns `err`; a text that is too long is cut. */
int s3error(struct store_error *ret_error, int err, enum store_fate fate, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
