/* In place of libpthread's functions, which --wrap leads here. */
#ifndef SIM_PTHREADS_H
#define SIM_PTHREADS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* As pthread_cond_timedwait(), by simulated time; false: it came. */
bool pthreads_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until_us);
/* The running thread comes to its end. `values` are its own (sched.h). */
void pthreads_end(void *values[]);

#endif
