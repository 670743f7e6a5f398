/*
 * Snapshots, rollbacks and a clone: each is an errand of a machine of its own, which may be killed,
 * or stopped for a day, between any two requests, and a look at what is there afterwards.
 *
 *   a snapshot  is one instant, not before the last flush to the bucket that was acknowledged
 *               before it was begun; and the very same whenever somebody looks
 *   a rollback  takes effect, whole, when its claim is stored; no flush of what is written
 *               afterwards by an older attachment is acknowledged; what was before is kept
 *   a clone     begins as the instant that its pin keeps; from then on it is a volume of its own
 */
#ifndef SIM_LINEAGE_H
#define SIM_LINEAGE_H

#include "counts.h"
#include "life.h"

void lineage_start(struct host *hosts, int nhosts);
/* Something may happen: an errand begins, ends, is killed, is stopped; somebody looks. */
void lineage_step(void);
/* The one under way comes to its end. */
void lineage_settle(void);
/* Looks at all that there is. */
void lineage_look(void);

/* By a client whose flush was acknowledged: a snapshot, online. */
int lineage_snapshot(struct life *l);

/* What the bucket got of this volume a moment ago the model does not know. */
void lineage_blur(const struct sim_volume *v);

#endif
