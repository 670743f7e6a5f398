/* Threads for work that would block. */
#ifndef S3VOL_WORKERS_H
#define S3VOL_WORKERS_H

#include <stddef.h>

/* Part of the caller's own struct, which must live until `run` is called; `run` may free it. */
struct work {
    void (*run)(struct work *work);
    size_t bytes; /* memory that it holds meanwhile */
    struct work *next;
};

struct workers;

/* Starts `nthreads` threads. At most `max_bytes` are held by what is given to them and not done,
 * and at most `max_waiting` pieces wait. */
int workers_new(unsigned nthreads, unsigned max_waiting, size_t max_bytes,
                struct workers **ret_workers);

/* Gives them `work`; in order. Blocks while that would exceed a limit; a piece larger than
 * `max_bytes` goes alone. Must not be called by one of these threads. */
void workers_run(struct workers *workers, struct work *work);

/* Runs what waits, ends the threads, frees. */
void workers_free(struct workers *workers);

#endif
