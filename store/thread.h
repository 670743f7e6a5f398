/* Threads of our own, which know how much stack they need; those that libraries start do not. */
#ifndef S3VOL_THREAD_H
#define S3VOL_THREAD_H

#include <pthread.h>
#include <stddef.h>

/* For all that are started from now on; otherwise they have what the system gives. Call it before
 * the first thread. */
void thread_set_stack(size_t bytes);

/* Join it. 0, or a negative errno. */
int thread_start(pthread_t *ret_thread, void *(*main)(void *), void *arg);

#endif
