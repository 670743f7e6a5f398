/*
 * Long work of a command on a volume that it opens itself. It runs in a thread of its own, while
 * what is left to do is shown on a terminal. The first SIGINT, SIGTERM or SIGHUP stops the volume,
 * so that the work fails soon with -ECANCELED, and tidies up; the second ends the process.
 */
#ifndef S3VOL_WORK_H
#define S3VOL_WORK_H

#include "../cache/volume.h"

struct work;

/* Calls run(work, ctx) and returns its result. No other thread may have been started before. */
int work_run(int (*run)(struct work *work, void *ctx), void *ctx);

/* What `run` has opened; to be taken back, with NULL, before it is closed. */
void work_set_volume(struct work *work, struct volume *volume);

/* How much is left, besides what the volume says of itself. */
void work_set_left(struct work *work, uint64_t bytes);

/* Whether a signal asked to end. */
bool work_is_stopped(struct work *work);

#endif
