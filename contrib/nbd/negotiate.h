/*
 * The handshake, server's side ("Newstyle negotiation", "Fixed newstyle negotiation", "Option
 * types", "FORCEDTLS mode"). Its only I/O is on the stream.
 */
#ifndef NBD_NEGOTIATE_H
#define NBD_NEGOTIATE_H

#include "exports.h"
#include "request.h"
#include "stream.h"

#include <stdatomic.h>

enum {
    NEGOTIATE_DATA_MAX = 64 * 1024, /* of one option; more is NBD_REP_ERR_TOO_BIG */
    NEGOTIATE_OPTIONS_MAX = 1000,   /* then the client is cut off */
};

struct tls;

struct negotiate_config {
    struct exports *exports;
    struct tls *tls; /* not NULL: nobody goes on without it … */
    int (*start_tls)(struct tls *tls, struct stream *stream); /* … which this begins */
    const atomic_bool *stopping;
};

/* What it came to. */
struct session {
    struct export *export; /* the caller releases it */
    struct agreement agreement;
};

/* 0: transmission begins. -ECONNABORTED: the client has said good-bye; -EPROTO: it does not keep to
 * the protocol, or must go; or an error of the stream. */
int negotiate(const struct negotiate_config *config, struct stream *stream,
              struct session *ret_session);

#endif
