/* Many slow things done at once, and used in order. */
#ifndef S3VOL_PIPELINE_H
#define S3VOL_PIPELINE_H

#include <stddef.h>

enum { PIPELINE_THREADS = 16, PIPELINE_AHEAD = 64 };

struct pipeline_ops {
    /* Makes item `i`: malloc'ed, not NULL but for lack of memory. On one of many threads. */
    void *(*make)(void *ctx, size_t i);
    /* Uses it: on the caller's thread, in order. 0: go on; else the end, and pipeline_run()'s
     * result. */
    int (*use)(void *ctx, size_t i, void *item);
    void (*drop)(void *item); /* frees it, used or not */
};

/* Items 0 to n - 1, at most PIPELINE_AHEAD of them made and not used. -ENOMEM, -EAGAIN (no thread
 * to be had), or what `use` returned. */
int pipeline_run(size_t n, const struct pipeline_ops *ops, void *ctx);

#endif
