/* Brings the map in an index up to date from the bucket. */
#ifndef S3VOL_CATCHUP_H
#define S3VOL_CATCHUP_H

#include "index.h"

struct catchup {
    struct log_position pos; /* what the map is as of now */
    uint64_t checkpoint;     /* the newest one listed; 0: none */
    uint64_t missing;        /* the first number that the log lacks */
    uint64_t segments;       /* read since the checkpoint, or since the index's own position */
};

/* Loads the newest checkpoint if the index is older, and takes in every whole commit after it; so
 * much is in the index even when this fails. -ENOENT, silently: something was deleted meanwhile,
 * start over. */
int catchup(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *ret_catchup);

/* A writer went on meanwhile: takes in what it stored since, without listing anything. */
int catchup_follow(struct log *log, struct index *ix, int64_t patience_ms, struct catchup *catchup);

#endif
