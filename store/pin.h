/*
 * Pins: objects "snapshot/<name>" that keep the volume as of one instant: the map is that of the
 * checkpoint `root` (0: the log from number 1) with the log's commits after it up to `seq`.
 * People's snapshots, and those that clones need. Whoever deletes objects of a volume lists the
 * pins first (DESIGN.md, "Reclaiming").
 */
#ifndef S3VOL_PIN_H
#define S3VOL_PIN_H

#include "log.h"

enum { PIN_NAME_MAX = 101 }; /* with the final NUL; url.h has the characters */

/* While one is being made, a pin of this name and a number of its own holds the same. '-' is before
 * every other character that a name may begin with. */
#define PIN_PENDING "-pending-"
bool pin_is_pending(const char *name);

struct pin {
    char name[PIN_NAME_MAX];
    uint8_t uuid[UUID_BYTES]; /* of the volume */
    uint64_t root, seq;       /* seq: the end of a commit, or a claim */
    uint64_t next;            /* the number of the log that follows */
    uint64_t size_bytes, epoch;
    char created[32]; /* RFC 3339, UTC */
    /* of a clone; "" and zeros for a snapshot of its own */
    char clone_url[BASE_URL_MAX];
    uint8_t clone_uuid[UUID_BYTES];
    char of[PIN_NAME_MAX]; /* the snapshot that the clone was made from; "": none */
};

/* Text <-> struct, as superblock_encode() and superblock_decode(). */
int pin_encode(const struct pin *pin, char *buf, size_t size_bytes, size_t *ret_len);
int pin_decode(const char *text, size_t len, struct pin *ret_pin, const char **ret_why);

/* "snapshot/<name>"; false from parsing: this is no such key. */
void pin_key(const char *name, char ret_key[STORE_KEY_MAX]);
bool pin_parse_key(const char *key, char ret_name[PIN_NAME_MAX]);

/* Calls `fn` for every pin, by name, those that are being made first: one that becomes a snapshot
 * meanwhile is there as the one or the other. One that cannot be read is an error, with a message:
 * nothing may be deleted then. One that is deleted meanwhile is left out. */
typedef int pin_fn(void *ctx, const struct pin *pin);
int pin_each(struct store *store, const struct superblock *sb, pin_fn *fn, void *ctx,
             int64_t patience_ms);
/* -ENOENT, silently: there is none of that name. */
int pin_load(struct store *store, const struct superblock *sb, const char *name,
             struct pin *ret_pin, int64_t patience_ms);
/* -EEXIST, silently: there is one of that name (not our own lost first try). */
int pin_store(struct store *store, const struct superblock *sb, const struct pin *pin,
              int64_t patience_ms);
int pin_delete(struct store *store, const char *name, int64_t patience_ms);

#endif
