/* All connections: each has a thread, which shakes hands and then serves (transmit.h). */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include "transmit.h"

enum {
    SERVER_HANDSHAKE_MS = 30 * 1000, /* that a client may keep us waiting in its handshake */
    SERVER_SPARE_WORKERS = 256,      /* of all connections, besides one for each */
    SERVER_STOP_MS = 10 * 1000,      /* that a client may take to receive its last answers */
};

struct server_config {
    struct exports *exports;
    struct tls *tls; /* or NULL: without */
    unsigned max_connections;
};

struct server;

int server_new(const struct server_config *config, struct server **ret_server);

/* Serves a client on these files, which are closed at its end, in the background. 0, or a negative
 * errno, and they are closed. There must be room. */
int server_serve(struct server *server, int in, int out);
/* How many there are. */
unsigned server_connections(struct server *server);
/* Can be read from when there are fewer than before; server_noticed() changes that. */
int server_left_fd(const struct server *server);
void server_noticed(struct server *server);

/* Ends all connections: what was received is answered first. Returns when all have ended; frees. */
void server_free(struct server *server);

#endif
