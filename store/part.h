/*
 * Parts of a checkpoint, and the root that lists them, as bytes. Formats: store/DESIGN.md ("The
 * table of parts"). Pure.
 */
#ifndef S3VOL_PART_H
#define S3VOL_PART_H

#include "entry.h"
#include "superblock.h"

enum {
#ifndef SMALL_LIMITS
    PART_ENTRIES = 16384, /* at most */
#else
    PART_ENTRIES = 64, /* the least: a chunk's fit into one part */
#endif
};

struct part {
    uint64_t first_chunk; /* it speaks of all chunks from here to the next part's first */
    uint64_t seq;         /* of the checkpoint that stored it */
    uint32_t index;       /* among that one's */
    uint32_t nentries;
    uint32_t object_bytes;
    uint32_t crc; /* of its body */
};

struct part_list {
    struct part *parts; /* malloc'ed */
    size_t nparts;
};

/* "part/0000000000000001.00000000"; false from parsing: this is no such key. */
void part_key(uint64_t seq, uint32_t index, char ret_key[STORE_KEY_MAX]);
bool part_parse_key(const char *key, uint64_t *ret_seq, uint32_t *ret_index);

/* The object of a part: `raw` are `nentries` encoded entries. Completes *header and *ret_object,
 * which the caller frees. -ENOMEM. */
int part_encode(struct header *header, const void *raw, uint32_t nentries, uint8_t **ret_object);
/* The object of a root. */
int part_list_encode(struct header *header, const struct part_list *list, uint8_t **ret_object);

/* A root, the whole object. On success the caller frees ret_list->parts. -ENOMEM,
 * -EBADMSG or -EPROTONOSUPPORT; with these two, *ret_why. */
int part_list_decode(const struct superblock *sb, uint64_t seq, const void *data, size_t len,
                     struct header *ret_header, struct part_list *ret_list, const char **ret_why);
/* The part that is number `i` of the list: its `nentries` entries, in order of blocks. */
int part_decode(const struct superblock *sb, const struct part_list *list, size_t i,
                const void *data, size_t len, struct entry *ret_entries, const char **ret_why);

/* The part speaks of the chunks before this one. */
uint64_t part_end_chunk(const struct part_list *list, size_t i);

#endif
