/*
 * Moves blocks that the map needs from where they are into a new segment: garbage collection
 * chooses them by segment, defragmentation by range, flattening by base. Gather, then commit, again
 * and again; one thread. What was written meanwhile wins (ENTRY_MOVE, store/DESIGN.md).
 */
#ifndef S3VOL_MOVER_H
#define S3VOL_MOVER_H

#include "../store/entry.h"

#include <stdbool.h>
#include <stddef.h>

struct volume;
struct mover;

/* For up to `raw_bytes` of blocks in a commit, at most LOG_SEGMENT_RAW_BYTES; about twice that in
 * memory, as long as it exists. */
int mover_new(struct volume *volume, size_t raw_bytes, struct mover **ret_mover);
void mover_free(struct mover *mover);

/* Adds a run of blocks that has this place in the map. False: there is no room; commit first. */
bool mover_add(struct mover *mover, const struct entry *place);

/* Reads, checks and packs what was added, stores it as a commit of its own, and returns when that
 * is in the index. Empty afterwards, whatever happened. *ret_bytes (stored) is set on success.
 * -EBADMSG: a frame is damaged (said), in segment *ret_bad of the volume's own log, or 0. -ESTALE:
 * fenced. -ECANCELED: the volume is being closed, or about to be. Others: the store or the index;
 * try again later.
 */
int mover_commit(struct mover *mover, uint64_t *ret_bytes, uint64_t *ret_bad);

#endif
