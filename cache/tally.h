/* What a change of the map means for each segment: a list of sums by segment. Pure. */
#ifndef S3VOL_TALLY_H
#define S3VOL_TALLY_H

#include <stddef.h>
#include <stdint.h>

struct tally_item {
    uint64_t seq;
    int64_t blocks, bytes; /* that the map needs of it: more, or fewer */
    int64_t stored;        /* bytes of the object */
};

struct tally {
    struct tally_item *items; /* free() them */
    size_t n, room;
};

/* Adds to the segment's sums. -ENOMEM. */
int tally_add(struct tally *tally, struct tally_item item);
/* One item for each segment, ascending. */
void tally_settle(struct tally *tally);

#endif
