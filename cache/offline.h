/* What can be learned of a volume, or done to it, without attaching to it. */
#ifndef S3VOL_OFFLINE_H
#define S3VOL_OFFLINE_H

#include "../store/store.h"

#include <stdio.h>

struct volume_info {
    char uuid[37];
    char created[32];      /* RFC 3339, UTC */
    char attached_by[256]; /* who attached last, and when; "" for nobody */
    char compression[16];  /* "zstd", "none" */
    uint64_t size_bytes;
    uint64_t allocated_bytes; /* of the volume: not known to be zero */
    uint64_t stored_bytes;    /* of all its objects */
    uint64_t epoch, log_seq;
};
/* Reads the map; fails with one line printed. */
int volume_info(struct store *store, struct volume_info *ret_info);

/* Reads every object that the log, its checkpoints and the map name, and checks every byte of it;
 * prints to `report` a line for each thing that is wrong (object, what is the matter, blocks), and
 * a summary. *ret_errors counts the lines. Fails only if it could not look. */
int volume_check(struct store *store, FILE *report, uint64_t *ret_errors);

/* Deletes all objects of the volume, the superblock first: from then on nobody can attach. */
int volume_delete(struct store *store);

#endif
