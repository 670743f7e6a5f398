/*
 * Deletes from the bucket what nothing needs any more: roots and parts of old checkpoints, segments
 * that the map and all pins can do without. store/DESIGN.md, "Reclaiming", says in which order, and
 * why no crash, reader or stale writer can be hurt. One thread.
 */
#ifndef S3VOL_SWEEP_H
#define S3VOL_SWEEP_H

#include "../store/checkpoint.h"
#include "index.h"

struct sweeper; /* remembers what the pins need */
int sweeper_new(struct log *log, struct index *index, struct sweeper **ret_sweeper);
void sweeper_free(struct sweeper *sweeper);

struct sweep {
    uint64_t dead_seq;  /* segments go that the map as of this number did not need: a root of ours
                           that  is stored */
    uint64_t keep_root; /* older roots go, with their parts; 0: none goes */
    const struct part_list *lists; /* parts that stay: of our last two roots */
    size_t nlists;
};
/* -ESTALE: fenced, nothing is deleted. Errors were reported. *ret_more: there was more to delete
 * than is done at once. */
int sweep(struct sweeper *sweeper, const struct sweep *what, int64_t patience_ms, bool *ret_more);

/* What a listing tells of the log that the index does not know: sizes, and objects that nothing
 * needs. `first_own`: the first number of this attachment. */
int sweep_inventory(struct log *log, struct index *index, uint64_t first_own, int64_t patience_ms);

#endif
