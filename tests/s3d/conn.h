/*
 * One connection: HTTP/1.1 requests in, answers out, over TCP or TLS, at a bounded speed. Used by
 * one thread, but for conn_shut().
 */
#ifndef S3D_CONN_H
#define S3D_CONN_H

#include "objects.h"

#include "../../store/sigv4.h"

#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    CONN_HEAD_SIZE = 64 * 1024,  /* request line and headers */
    CONN_BODY_MAX = 128 << 20,   /* one PUT */
    CONN_IDLE_S = 60,            /* then it is closed */
    CONN_PIECE_BYTES = 64 * 1024 /* read or written at once when the speed is bounded */
};

struct conn {
    int fd;
    SSL *ssl;   /* NULL: plain */
    char *head; /* what was read and is not used up */
    size_t have, used;
    uint64_t bandwidth; /* bytes per second, 0: no bound; may be changed between requests */
    int64_t busy_until_us;
    uint64_t in;           /* bytes of the body of the request at hand */
    int64_t clock_ahead_s; /* of the Date in answers */
};

/* Pointers are good until the next conn_read_head(). */
struct request {
    char *method, *path, *query; /* as received; the query without '?' */
    struct sigv4_pair headers[SIGV4_PAIRS_MAX];
    size_t nheaders;
    char *body; /* malloc'ed; NUL-terminated */
    size_t body_len;
    bool keep_alive;
};

struct answer {
    int status;
    char headers[1024];    /* lines that end in "\r\n" */
    char *text;            /* malloc'ed body … */
    struct object *object; /* … or a piece of an object, of which this is a reference */
    const char *body;      /* the body, in one of these, or NULL */
    uint64_t body_len;     /* as announced; without a body, for HEAD */
};

/* Takes over `conn->fd`, all else is zero; performs the TLS handshake if `tls` is not NULL. 0, or a
 * negative errno, and it must be closed all the same. */
int conn_open(struct conn *conn, SSL_CTX *tls);
void conn_close(struct conn *conn);
/* Ends whatever its thread waits for. From any thread, until it is closed. */
void conn_shut(struct conn *conn);

/* 0; -EPIPE when the peer has gone or is idle too long; -EBADMSG for what is no HTTP, and
 * -EMSGSIZE for a head that is too long. */
int conn_read_head(struct conn *conn, struct request *ret_request);
/* Reads the body into `request`; stops after `limit` bytes with -EPIPE. -ENOTSUP when its length
 * is not told in advance, -EMSGSIZE when it is too long: the connection must be closed then. */
int conn_read_body(struct conn *conn, struct request *request, uint64_t limit);
/* NULL if there is no such header. */
const char *request_header(const struct request *request, const char *name);
void request_free(struct request *request);

/* Adds a header line. */
void answer_header(struct answer *answer, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Writes the answer, of its body at most `limit` bytes (-EPIPE if that cuts it). */
int conn_write(struct conn *conn, const struct request *request, const struct answer *answer,
               uint64_t limit);
void answer_free(struct answer *answer);

/* Waits until the peer hangs up or `*generation` is no longer `seen`. */
void conn_hang(struct conn *conn, const atomic_uint *generation, unsigned seen);

int64_t now_us(void);
void sleep_us(int64_t us);

#endif
