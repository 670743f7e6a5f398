/*
 * The server: one thread for each connection, at most SERVER_CONNECTIONS_MAX; further ones wait in
 * the queue of the socket.
 */
#ifndef S3D_SERVER_H
#define S3D_SERVER_H

#include "api.h"
#include "auth.h"

enum { SERVER_CONNECTIONS_MAX = 256 };

struct server_config {
    struct auth_config auth;
    struct api_config api;
    SSL_CTX *tls; /* or NULL */
    uint64_t latency_ms, bandwidth;
};

/* Once; `config` is borrowed until server_stop(). */
void server_init(const struct server_config *config);

/* True when one more connection may be accepted; otherwise server_ended is an eventfd that tells
 * when to look again. These are for one thread. */
bool server_has_room(void);
extern int server_ended;

/* Serves the connection `fd`, which it takes over. */
void server_start(int fd);

/* Ends all connections and waits for their threads. */
void server_stop(void);

#endif
