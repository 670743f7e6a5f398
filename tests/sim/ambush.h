/*
 * What the engine saw in the index without its lock can be old news when it has the lock again: the
 * chunk was written to meanwhile, committed, and evicted. By chance that is rare. Here a thread is
 * held up after its look, while the other clients of the volume write to that chunk; then it is
 * evicted, the thread goes on, and they read it.
 *
 * So it is with a sweep: that the log is ours is old news when it comes to deleting. It is held up
 * in between, so that others may attach, and store a checkpoint.
 *
 * Moves and a flush seldom come at once: some moves are held up until one comes, and both go
 * on at the same instant.
 *
 * Rare is also a writer that is quicker than every claim: here claims are held back for some time,
 * as if a segment had been there.
 */
#ifndef SIM_AMBUSH_H
#define SIM_AMBUSH_H

#include "../../cache/volume.h"

enum ambush { AMBUSH_NONE, AMBUSH_WRITE, AMBUSH_READ };

/* The machine's next look into the index is one of these, and none after ambush_disarm(). */
void ambush_arm(struct volume *v);
void ambush_disarm(void);

/* All that is clean is not here any more. */
void ambush_evict(struct volume *v);

/* Until the chunk at this offset in bytes is in a commit that is not in the index yet, or some
 * seconds have passed. */
void ambush_await_commit(struct volume *v, uint64_t offset);

/* What should be done now on this machine, to the chunk at this offset in bytes. */
enum ambush ambush_now(uint64_t *ret_offset);

/* A flush of this machine met moves, since the last call: what it promised should be put to the
 * test. */
bool ambush_met(void);

#endif
