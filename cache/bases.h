/* The stores of what a clone shares blocks with. */
#ifndef S3VOL_BASES_H
#define S3VOL_BASES_H

#include "../store/pin.h"

struct bases {
    unsigned n;
    struct store *stores[BASES_MAX]; /* NULL: it does not hold anything for us (any more) */
};

/* One request for each base, unless the clone was flattened: is our pin there? An error was
 * reported. */
int bases_open(struct store *store, const struct superblock *sb, int64_t patience_ms,
               struct bases *ret_bases);
/* The newest request to each was answered. */
bool bases_reachable(const struct bases *bases);
void bases_stop(struct bases *bases);
void bases_close(struct bases *bases);

/* The name of the pin that a clone of this uuid has in its bases. */
void bases_pin_name(const uint8_t uuid[UUID_BYTES], char ret_name[PIN_NAME_MAX]);

#endif
