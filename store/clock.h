/*
 * The time, and waiting for it to pass: a table of functions, so that a test can put its own clock
 * under everything below the front ends.
 */
#ifndef S3VOL_CLOCK_H
#define S3VOL_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct clock {
    int64_t (*now_ms)(void);  /* monotonic */
    int64_t (*wall_ms)(void); /* since 1970-01-01 UTC */
    /* Waits on `cond` with `lock` held until it is signalled or the monotonic time reaches
     * `until_ms`; false when the time was reached. Spurious returns are allowed. */
    bool (*wait_until)(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_ms);
};

/* The machine's own clock. Conditions that wait on it must be set up by clock_cond_init(). */
extern const struct clock clock_system;

void clock_cond_init(pthread_cond_t *cond);

#endif
