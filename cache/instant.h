/* The newest instant of a volume, for pins: found without reading the map. */
#ifndef S3VOL_INSTANT_H
#define S3VOL_INSTANT_H

#include "../store/pin.h"

struct instant {
    struct log_position pos; /* pos.seq: the end of the last whole commit, or a claim behind it */
    uint64_t root;           /* the newest checkpoint; 0: there is none */
};

/* A handful of requests whatever the size, in the common case; else the heads of what the log has
 * after the checkpoint are read. `nonce` of the position is not set then. -ENOENT as catchup(). */
int instant_newest(struct log *log, int64_t patience_ms, struct instant *ret_instant);

/* Stores `pin`, whose instant is set to the newest one, so that nothing that it needs can be
 * deleted meanwhile. What is there of that name is whole, also if this dies. -EEXIST, silently:
 * there is one of that name. */
int instant_pin(struct log *log, struct pin *pin, int64_t patience_ms);

#endif
