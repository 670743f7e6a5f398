/* The map in index.db, brought up to date from the bucket: by whoever attaches or looks. */
#ifndef S3VOL_CATCHUP_H
#define S3VOL_CATCHUP_H

#include "index.h"

struct catchup {
    bool ours_only;          /* as catchup() was told */
    struct log_position pos; /* what the map is as of now */
    uint64_t checkpoint;     /* the newest one's number; 0: there is none */
    uint64_t segments;       /* read from the log */
    uint64_t missing;        /* the log's first missing number */
    struct header rollback;  /* a claim that does not stand in the map yet; its kind is 0: none */
};

/* From the newest checkpoint, if it is newer than the map, and the log after it. Cached rows lose
 * what others wrote. -ENOENT: something was deleted meanwhile; call again. Other errors were
 * reported. A clone that has no checkpoint begins with its base's map. `ours_only`: nobody's log
 * but ours is read. -ESTALE, silently: somebody else claimed it; the map is as of the last instant
 * before, as far as that can be read still, and pos of that claim, or of a later one. */
int catchup(struct log *log, struct index *ix, bool ours_only, int64_t patience_ms,
            struct catchup *ret);

/* Makes an empty index the volume as of an instant: a pin's root and seq. -ENOENT as above. */
int catchup_to(struct log *log, struct index *ix, uint64_t root, uint64_t seq, int64_t patience_ms,
               struct catchup *ret);

/* The log from its beginning, whatever checkpoints there are; of a clone, from its base's map. What
 * could be read is in the map, also after an error. */
int catchup_from_start(struct log *log, struct index *ix, int64_t patience_ms);

/* `enter` is called when a new map is ready, and is about to take effect; an error prevents that.
 */
struct catchup_gate {
    int (*enter)(void *ctx);
    void *ctx;
};

/* For who reads the log by itself: where it begins (of a clone, with the base's map, unless that
 * was loaded before); the map of a checkpoint (-ENOENT: it is not there any more); and what a claim
 * with HEADER_ROLLBACK, after which the log is at `pos`, means. `gate` may be NULL. */
int catchup_begin(struct log *log, struct index *ix, int64_t patience_ms,
                  struct log_position *ret_pos);
int catchup_load(struct log *log, struct index *ix, uint64_t root, int64_t patience_ms,
                 const struct catchup_gate *gate, struct log_position *ret_pos);
int catchup_roll_back(struct log *log, struct index *ix, const struct header *claim,
                      const struct log_position *pos, int64_t patience_ms,
                      const struct catchup_gate *gate);

#endif
