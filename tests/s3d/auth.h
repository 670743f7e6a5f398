/* Who may: signatures, clocks and payload hashes, as strictly as S3 itself. */
#ifndef S3D_AUTH_H
#define S3D_AUTH_H

#include "conn.h"

struct auth_config {
    const char *access_key, *secret;
    const char *token;     /* the session token that goes with them, or NULL */
    const char *region;    /* that the signature must be for */
    int64_t clock_ahead_s; /* how much this server's clock is ahead of the machine's */
};

/* Why not; `detail` is more XML for the answer, or "". */
struct auth_refusal {
    int status;
    const char *code;
    char message[256], detail[256];
};

/* True if the request may pass; ret_hash is then the SHA-256 of its body. */
bool auth_check(const struct auth_config *config, const struct request *request,
                char ret_hash[SIGV4_HEX_SIZE], struct auth_refusal *ret_refusal);

#endif
