/*
 * Bytes from and to one client, however they travel: a socket, a pair of pipes, TLS (tls.h), or, in
 * tests, memory. What is received goes through a buffer, so that small messages come many at a
 * time. One thread may receive while another sends.
 */
#ifndef NBD_STREAM_H
#define NBD_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { STREAM_BUFFER_BYTES = 64 * 1024 };

struct stream;
struct stream_ops {
    /* As readv() and writev() of a file that does not block: -EAGAIN when one has to wait; a
     * negative errno instead of -1. */
    ssize_t (*readv)(struct stream *stream, const struct iovec *iov, int n);
    ssize_t (*writev)(struct stream *stream, const struct iovec *iov, int n);
    /* Bytes that readv() gives although the file may have none to read. */
    size_t (*pending)(struct stream *stream);
};

struct stream {
    const struct stream_ops *ops;
    int in, out;     /* files, not blocking until patient; -1: nothing to wait for */
    void *layer;     /* whatever `ops` need */
    int patience_ms; /* how long to wait for the client from now on, in all; -1: forever */
    size_t begin, end;
    unsigned char buffer[STREAM_BUFFER_BYTES]; /* received, not used yet: from begin to end */
};

/* On the files `in` and `out`, which may be the same and are made non-blocking; they stay the
 * caller's. */
void stream_init(struct stream *stream, int in, int out);

/* From now on it may take forever. A plain socket then waits in the kernel, without a poll() for
 * each part of a message; shutdown() ends that. */
void stream_be_patient(struct stream *stream);

/* All of `len` bytes. 0; -ECONNRESET when they end before that, -ETIMEDOUT when patience does, or
 * another negative errno. */
int stream_receive(struct stream *stream, void *buf, size_t len);
/* The same, and thrown away. */
int stream_skip(struct stream *stream, size_t len);
/* All of it; `iov` is used up. Errors as above. */
int stream_send(struct stream *stream, struct iovec *iov, int n);

/* Whether something can be received although the file may have nothing to read. */
bool stream_has_more(struct stream *stream);

/* Waits for `events` of poll() on `fd`, patiently: 0 or -ETIMEDOUT. For layers. */
int stream_wait(struct stream *stream, int fd, short events);

#endif
