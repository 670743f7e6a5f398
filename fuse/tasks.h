/* The daemon's side of CONTROL_TASK: long work that outlives the ioctl that started it. */
#ifndef S3VOL_TASKS_H
#define S3VOL_TASKS_H

#include "../cache/volume.h"
#include "control.h"
#include "workers.h"

struct tasks;

/* Runs the work on `workers`, CONTROL_KEEP on `keeper`, so that it waits for nothing that waits for
 * the store; borrows all. */
int tasks_new(struct volume *volume, struct workers *workers, struct workers *keeper,
              struct tasks **ret_tasks);

/* One call, as control.h says; blocks for `wait_ms`. -EBUSY: too many run; -EINVAL: no such kind or
 * ticket. */
int tasks_step(struct tasks *tasks, struct control_task *task);

/* The workers must have ended. */
void tasks_free(struct tasks *tasks);

#endif
