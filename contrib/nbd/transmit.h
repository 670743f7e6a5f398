/* The threads of one connection in the transmission phase. DESIGN.md tells how they take turns. */
#ifndef NBD_TRANSMIT_H
#define NBD_TRANSMIT_H

#include "serve.h"

enum { TRANSMIT_WORKERS_MAX = 16 }; /* of a connection */

/* What all connections share. */
struct transmit_shared {
    atomic_int spare; /* how many more workers there may be */
    int stop;         /* can be read from once `stopping` is set: an eventfd */
    atomic_bool stopping;
};

/* Serves requests until the client leaves or must go, or `stopping`; then all that were received
 * have been answered. Called by the connection's first thread, which becomes one of its workers. */
void transmit(struct transmit_shared *shared, struct stream *stream, const struct session *session);

#endif
