/*
 * The header that every binary object in the bucket begins with: segments, claims, checkpoints and
 * their parts. Offsets: store/DESIGN.md, "The header". Pure.
 */
#ifndef S3VOL_HEADER_H
#define S3VOL_HEADER_H

#include <stddef.h>
#include <stdint.h>

enum {
    HEADER_BYTES = 128,
    HEADER_AT_UUID = 16,
    FORMAT_VERSION = 1,
    UUID_BYTES = 16,
};

enum header_kind {
    HEADER_SEGMENT = 1,
    HEADER_CLAIM = 2,
    HEADER_CHECKPOINT = 3,
    HEADER_PART = 4,
};

/* flags */
enum {
    HEADER_LAST = 1,     /* this segment ends its commit */
    HEADER_ROLLBACK = 2, /* this claim takes the map back to an earlier instant; its body begins
                            with that one's root and seq, 8 bytes each (log.h: rollback_…) */
    HEADER_AHEAD = 4,    /* this claim was stored before the log had come to it */
};

struct header {
    enum header_kind kind;
    uint32_t flags;
    uint8_t uuid[UUID_BYTES];  /* the volume's */
    uint8_t nonce[UUID_BYTES]; /* the attachment's */
    uint64_t epoch;
    uint64_t seq;         /* this object's number; a part's: its checkpoint's */
    uint64_t size_blocks; /* the volume's size from here on */
    uint64_t first;       /* segment: the first number of its commit; claim: the end of what is
                             before it, a commit's or an older claim (0: nothing), or with
                             HEADER_AHEAD the first number missing when it was stored; checkpoint:
                             seq; part: its index */
    uint64_t next;        /* claim and checkpoint: the number where the log goes on; segment: all
                             below it were acknowledged when this one was stored; part: 0 */
    uint64_t claim;       /* the number of the attachment's claim; a claim's: its own */
    uint64_t wall_ms;     /* when it was made; for people only */
    uint32_t nentries;    /* segment, part: entries; checkpoint: parts; claim: 0 */
    uint32_t body_bytes;  /* stored after the header and covered by body_crc: the entry table, the
                             claim's text, the part table, or the packed entries */
    uint32_t body_crc;
    uint32_t object_bytes; /* the whole object, frames included */
    /* of a claim with HEADER_ROLLBACK, given by log_decode(); not in the header: the volume is as
     * of this pin's root and seq (pin.h) */
    uint64_t rollback_root, rollback_seq;
};

/* Fills in body_crc over `body` (body_bytes long) and writes HEADER_BYTES to `out`. */
void header_encode(struct header *header, const void *body, void *out);

/* Checks `len` bytes from an object's beginning: magic, version, checksums, sizes, and that the
 * object is of this volume (`uuid`), kind (0: segment or claim) and number. The body must lie
 * within `len`, it follows at data + HEADER_BYTES. On failure *ret_why says what is wrong:
 * -EBADMSG, or -EPROTONOSUPPORT for a version, flags or a field from the future. */
int header_decode(const void *data, size_t len, const uint8_t uuid[UUID_BYTES],
                  enum header_kind kind, uint64_t seq, struct header *ret_header,
                  const char **ret_why);

/* A segment or claim: all numbers below this one were there when it was stored. */
uint64_t header_knows_of(const struct header *header);

#endif
