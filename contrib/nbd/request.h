/* What may be wrong with a request ("Request types", "Command flags", "Error values"). Pure. */
#ifndef NBD_REQUEST_H
#define NBD_REQUEST_H

#include "protocol.h"

#include <stdbool.h>

enum { REQUEST_PIECE_BYTES = 1 << 20 }; /* what is held of one, and sent of one in one chunk */

struct request {
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
};

/* What was agreed on with the client. */
struct agreement {
    uint64_t size;
    bool read_only, structured, allocation; /* allocation: base:allocation was chosen */
};

/* The transmission flags that follow from it. */
uint16_t request_transmission_flags(const struct agreement *agreement);

/* False: these NBD_REQUEST_BYTES are no request, and nothing that follows makes sense. */
bool request_decode(const unsigned char bytes[NBD_REQUEST_BYTES], struct request *ret_request);

/* 0 or the NBD error that it must get, with the reason, a constant, in *ret_why. */
uint32_t request_check(const struct request *request, const struct agreement *agreement,
                       const char **ret_why);

/* The NBD error for a negative errno of ours. */
uint32_t request_error(int err);

#endif
