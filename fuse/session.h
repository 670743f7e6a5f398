/*
 * The connection to the kernel: mounts, and receives requests on a few threads, each of which calls
 * the operations itself. libfuse decodes and answers; the receiving is ours, so that the bytes of a
 * WRITE land in memory aligned for direct I/O and are not copied again.
 */
#ifndef S3VOL_SESSION_H
#define S3VOL_SESSION_H

#include <fuse_lowlevel.h>
#include <stdbool.h>

enum {
    SESSION_IO_MAX = 1 << 20,   /* bytes of one READ or WRITE at most */
    SESSION_BACKGROUND_MAX = 32 /* asynchronous requests that the kernel keeps under way */
};

struct session_config {
    const struct fuse_lowlevel_ops *ops;
    void *userdata;
    const char *source; /* for /proc/mounts */
    const char *dir;    /* absolute */
    bool allow_other;
    bool read_only;
    bool map_direct; /* the kernel may map an image that is open for direct I/O, if it can */
    void (*ended)(void *ctx); /* called once, by the last receiver, when the mount is gone or after
                                 session_stop() */
    void *ctx;
};

struct session;

/* Mounts and starts receiving; the strings are borrowed for the call. One line was printed on
 * failure. Signals that must not interrupt anything are to be blocked before. */
int session_open(const struct session_config *config, struct session **ret_session);

/* Ends the receivers, if they have not ended: no operation is called after this returns. Whoever
 * still uses the image gets errors once the session is freed. */
void session_stop(struct session *session);

/* After session_stop(), when nothing is mounted any more and every request is answered: closes the
 * connection. */
void session_free(struct session *session);

/* Whether the kernel lets an image be mapped that is open for direct I/O (Linux 6.6). Known when an
 * image is opened. */
bool session_maps_direct(void);

/* Nothing that the calling receiver does is interrupted by session_stop(), or may be again: a sync
 * that was interrupted would be one that failed. */
void session_hold_signals(bool hold);

/* The calling receiver's buffer for the answer to a READ, SESSION_IO_MAX bytes, aligned; valid
 * until the operation returns. */
void *session_reply_buffer(void);

#endif
