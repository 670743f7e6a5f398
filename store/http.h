/*
 * HTTP requests: a bounded pool of libcurl handles, each with its connection, used last in, first
 * out, so that few stay warm. Knows nothing of S3.
 *
 * A request runs on its caller's thread. It ends early when no byte moved in either direction for
 * the stall timeout, or when http_stop() was called. Redirects are not followed. One that may be
 * hedged is sent a second time, on another connection, when its answer does not begin for unusually
 * long (hedge.h): the answer that begins first is taken, but for errors while the other may come.
 */
#ifndef S3VOL_HTTP_H
#define S3VOL_HTTP_H

#include "clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http;

struct http_config {
    unsigned connections; /* at most so many requests at once; a further one waits */
    int64_t connect_timeout_ms;
    int64_t stall_timeout_ms;
    const char *ca_file; /* PEM, or NULL for the system's; copied */
    const struct clock *clock;
};

/* 0, -ENOMEM, or -EIO with one line printed if libcurl cannot be used. */
int http_new(const struct http_config *config, struct http **ret_http);
/* All requests must have returned. */
void http_free(struct http *http);
/* Ends the requests under way and all later ones with HTTP_STOPPED. From any thread. */
void http_stop(struct http *http);

enum http_end {
    HTTP_ANSWERED, /* whole: status and body are as the server sent them */
    HTTP_CUT,      /* an answer began, but did not come whole */
    HTTP_NO_ANSWER,
    HTTP_STALLED,
    HTTP_STOPPED,
    HTTP_ENOUGH, /* the body callback wanted no more */
    HTTP_NO_MEMORY,
};

struct http_answer {
    enum http_end end;
    int curl_code;    /* CURLcode, for HTTP_CUT and HTTP_NO_ANSWER */
    char reason[256]; /* … and libcurl's words, maybe "" */
    int status;
    bool hedged;            /* it was sent twice */
    int64_t content_length; /* as announced; -1: not */
    char content_range[96]; /* the headers of these names, "" if not sent */
    char date[48];
    char region[64]; /* x-amz-bucket-region */
    char *body; /* what was not given to on_body, NUL-terminated; NULL only if HTTP_NO_MEMORY */
    size_t body_len;
};

/* Gets the body of a 2xx answer piece by piece, with status and headers in `answer`; a non-zero
 * return ends the request with HTTP_ENOUGH. */
typedef int http_on_body(void *ctx, const struct http_answer *answer, const void *data, size_t len);

struct http_request {
    const char *method;
    const char *url;
    const char *const *headers; /* "Name: value"; Host is the caller's to give */
    size_t nheaders;
    const void *body; /* for PUT and POST; borrowed */
    size_t body_len;
    bool hedge;            /* it may be sent twice at once */
    http_on_body *on_body; /* NULL: the body is collected in the answer */
    void *ctx;
};

/* Bodies that are collected end at this size; a longer one is HTTP_CUT. */
enum { HTTP_BODY_MAX = 4 << 20 };

/* The caller passes the answer to http_answer_free(), whatever its end. */
void http_do(struct http *http, const struct http_request *request, struct http_answer *ret_answer);
void http_answer_free(struct http_answer *answer);

/* A status line came, and no header yet; pure, as is the next one (http_answer.c). */
void http_answer_begin(struct http_answer *answer, int status);
/* One line of the headers, of any bytes: takes in the value if it is one of those above. */
void http_answer_header(struct http_answer *answer, const char *line, size_t len);

#endif
