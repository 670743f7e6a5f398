/*
 * TLS on a stream ("TLS support"), by OpenSSL: server certificates, and client certificates if a
 * certificate authority for them is named. TLS 1.2 and later.
 */
#ifndef NBD_TLS_H
#define NBD_TLS_H

#include "stream.h"

struct tls;

/* PEM files: the certificate with those between it and its authority, its key, and, or NULL, the
 * authority whose clients alone may enter. Says what is wrong with them. */
int tls_new(const char *cert, const char *key, const char *client_ca, struct tls **ret_tls);
void tls_free(struct tls *tls);

/* The handshake, on a stream that has nothing buffered; from then on the stream's bytes go through
 * TLS. -EPROTO when there is no agreement; the stream can only be closed then. */
int tls_start(struct tls *tls, struct stream *stream);
/* Tells the client, if the stream uses TLS, that this is the end, and frees what tls_start() made.
 */
void tls_end(struct stream *stream);

#endif
