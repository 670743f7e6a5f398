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

/* The same with fewer requests, for a pin that means nothing until something else is stored, and
 * whose name is used for this only: if this dies, it may need what is deleted. -EAGAIN, silently: a
 * newer checkpoint came; try again, under another name, as a request of this one may come late. */
int instant_pin_tentative(struct log *log, struct pin *pin, int64_t patience_ms);
enum { INSTANT_TRIES = 32 };
/* -EBUSY, with a message: so often there was a newer one. */
int instant_no_end(struct log *log);

#endif
