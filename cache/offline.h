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
    char clone_of[512]; /* URL; "": no clone */
    uint64_t snapshots; /* clones' pins not counted */
};
/* Reads the map; fails with one line printed. */
int volume_info(struct store *store, struct volume_info *ret_info);

/* Reads every object that the log, its checkpoints and the map name, and checks every byte of it;
 * prints to `report` a line for each thing that is wrong (object, what is the matter, blocks), and
 * a summary. *ret_errors counts the lines. Fails only if it could not look. */
int volume_check(struct store *store, FILE *report, uint64_t *ret_errors);

/* What a repair does, or did. */
struct volume_repair {
    bool needed;         /* the volume cannot be attached as it is */
    bool roots_damaged;  /* the newest checkpoint is, or one of its parts */
    bool log_broken;     /* behind `seq` an object is damaged or missing: */
    uint64_t checkpoint; /* the newest good one; 0: none, the log from its beginning */
    uint64_t seq;        /* the volume goes back to this number: the end of a commit, or a claim */
    uint64_t wall_ms;    /* when that was made, by its maker's clock; 0: nobody knows */
    uint64_t size_bytes; /* of the volume then */
    uint64_t commits_lost, segments_lost; /* good objects behind it, which are given up */
    uint64_t damaged;                     /* objects behind it that cannot be read */
};
/* 0: do it. */
typedef int volume_repair_fn(void *ctx, const struct volume_repair *plan);

/* Makes a volume that cannot be attached any more attachable, as of the newest instant that can be
 * read: asks `agree` before anything is changed (again only if it comes out older), fences every
 * writer, and stores a checkpoint. Nothing is overwritten or deleted. Damaged frames stay as they
 * are. Fails with one line printed, but for what `agree` returned. */
int volume_repair(struct store *store, volume_repair_fn *agree, void *ctx,
                  struct volume_repair *ret_repair);

/* Deletes all objects of the volume, the superblock first: from then on nobody can attach. */
int volume_delete(struct store *store);

/* Removes a directory of caches that nobody has open. */
void volume_remove_dir(const char *dir);

#endif
