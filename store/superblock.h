/*
 * The superblock: object "volume", JSON, written once at create and never again; but that of a
 * volume that takes long to make says so, and is replaced when it is finished. What a clone became
 * since, is said by an object beside it: "flat-<uuid>".
 */
#ifndef S3VOL_SUPERBLOCK_H
#define S3VOL_SUPERBLOCK_H

#include "header.h"
#include "note.h"
#include "store.h"

enum { BASES_MAX = 8, BASE_URL_MAX = 512 };

/* What a clone shares blocks with, as of one instant. */
struct base {
    char url[BASE_URL_MAX];
    uint8_t uuid[UUID_BYTES];
    uint64_t root, seq; /* a checkpoint of it (0: none, its log from the beginning), and the end of
                           the commit, or the claim, that the instant is */
};

struct superblock {
    uint8_t uuid[UUID_BYTES];
    uint64_t size_bytes;  /* at creation; the log knows of later growth */
    bool compress;        /* what mounts do by default */
    bool conditional_put; /* the store refuses to overwrite when asked to: found out at create */
    bool unfinished;      /* still being made: nobody else may attach */
    char created[32];     /* RFC 3339, UTC */
    /* of a clone: the volume that it was made from, then that one's bases in their order */
    unsigned nbases;
    struct base bases[BASES_MAX];
    /* Its map needs nothing of them any more, nor does a snapshot of it. Segments, and what its own
     * clones have pinned, may still name them. Not in the object, found by superblock_load(). */
    bool flattened;
};

enum { UUID_TEXT_BYTES = 37 };
void uuid_format(const uint8_t uuid[UUID_BYTES], char ret_text[UUID_TEXT_BYTES]);
/* -EBADMSG: not what uuid_format() writes. */
int uuid_parse(const char *text, uint8_t ret_uuid[UUID_BYTES]);
int random_bytes(void *buf, size_t len);

/* Text <-> struct. Encoding needs NOTE_BYTES_MAX of room at most; *ret_len excludes the final NUL.
 * Decoding: 0, -EBADMSG, or -EPROTONOSUPPORT, with *ret_why. */
int superblock_encode(const struct superblock *sb, char *buf, size_t size_bytes, size_t *ret_len);
int superblock_decode(const char *text, size_t len, struct superblock *ret_sb,
                      const char **ret_why);

/* Sets uuid, created and conditional_put (with three small requests on a key "probe-…"), and stores
 * it. -EEXIST, with a message, if there is a volume. */
int superblock_create(struct store *store, struct superblock *sb, const struct clock *clock,
                      int64_t patience_ms);

/* The steps of it, for clones: -EEXIST, with a message, if there is a volume; sets uuid and
 * created; stores it, after the probe if what the store can do is not known. */
int superblock_expect_none(struct store *store, int64_t patience_ms);
int superblock_name(struct superblock *sb, const struct clock *clock);
int superblock_store(struct store *store, struct superblock *sb, bool probe, int64_t patience_ms);

/* Stores the object that says so. Again and again is once. */
int superblock_flatten(struct store *store, const struct superblock *sb, int64_t patience_ms);
/* The bases that are needed: none of a flattened one. */
static inline unsigned superblock_needed_bases(const struct superblock *sb)
{
    return sb->flattened ? 0 : sb->nbases;
}

/* Replaces the superblock of a volume that was unfinished. Again and again is once. */
int superblock_finish(struct store *store, struct superblock *sb, int64_t patience_ms);

/* Fails with one line printed; -ENOENT: there is no volume; -EBUSY: it is unfinished. One request,
 * of a clone two. */
int superblock_load(struct store *store, struct superblock *ret_sb, int64_t patience_ms);
/* The same, whether it is finished or not. */
int superblock_load_any(struct store *store, struct superblock *ret_sb, int64_t patience_ms);

/* Silently: 0, -ENOENT: there is none any more; -EEXIST: it is another volume's. A damaged one is
 * taken for ours. */
int superblock_is_still(struct store *store, const struct superblock *sb, int64_t patience_ms);

#endif
