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
        uint64_t next;   /* where it goes on */
        uint64_t ahead;  /* fetched, or being fetched, up to here */
        uint64_t window; /* how far beyond `next` to fetch; 0: seen once */
        uint64_t used;   /* turn */
    } streams[READAHEAD_STREAMS];
};

/* Takes note of a read. True if it goes on where an earlier one ended; then [*ret_from, *ret_to) is
 * to be fetched ahead (empty if there is enough). */
bool readahead_note(struct readahead *ra, uint64_t offset, uint64_t len, uint64_t *ret_from,
                    uint64_t *ret_to);

#endif
