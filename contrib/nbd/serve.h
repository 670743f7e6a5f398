/*
 * One request of the transmission phase: received, done, answered ("Request message", "Simple reply
 * message", "Structured reply chunk message", "Request types"). serve_receive() is called by one
 * thread at a time, serve_do() by any number.
 */
#ifndef NBD_SERVE_H
#define NBD_SERVE_H

#include "negotiate.h"

#include <pthread.h>

struct service {
    struct stream *stream;
    struct session session;
    const atomic_bool *stopping;
    pthread_mutex_t send_lock; /* held for one message */
};

void service_init(struct service *service, struct stream *stream, const struct session *session,
                  const atomic_bool *stopping);
void service_destroy(struct service *service);

/* A request under way, with the memory for it; used again and again by one thread. */
struct job {
    struct request request;
    uint32_t error;     /* an NBD error that it gets instead of being done */
    const char *why;    /* the reason, for people */
    bool answered;      /* nothing is left to do */
    bool written;       /* of a WRITE: its payload is where it belongs, but for the flush of FUA */
    unsigned char *buf; /* REQUEST_PIECE_BYTES once it was needed */
};

void job_free(struct job *job);

/* Receives the next request. 0; -ECONNABORTED when the client says good-bye, -EPROTO when that was
 * no request, or an error of the stream. What takes no waiting has been done and answered already.
 */
int serve_receive(struct service *service, struct job *job);

/* Does it, and sends the answer. 0, or an error of the stream: nothing can be sent any more. */
int serve_do(struct service *service, struct job *job);

#endif
