/* Which reads are sequential, and how far ahead to fetch. Pure: a policy without I/O or locks. */
#ifndef S3VOL_READAHEAD_H
#define S3VOL_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

enum { READAHEAD_STREAMS = 16 };

struct readahead {
    uint64_t max_bytes; /* 0: never */
    uint64_t turn;
    struct stream {
        uint64_t next;  /* where it goes on */
        uint64_t ahead; /* fetched, or being fetched, up to here; 0: read once only */
        uint64_t read;  /* in order so far: as much is fetched beyond `next` */
        uint64_t used;  /* turn */
    } streams[READAHEAD_STREAMS];
};

/* Takes note of a read. True if it goes on where an earlier one ended; then [*ret_from, *ret_to) is
 * to be fetched ahead (empty if there is enough). Without `fetch` it is not going to be now: to be
 * called again for the same read. */
bool readahead_note(struct readahead *ra, uint64_t offset, uint64_t len, bool fetch,
                    uint64_t *ret_from, uint64_t *ret_to);

#endif
