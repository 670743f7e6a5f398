#include "thread.h"

static size_t stack_bytes; /* 0: what the system gives */

void thread_set_stack(size_t bytes)
{
    stack_bytes = bytes;
}

int thread_start(pthread_t *ret_thread, void *(*main)(void *), void *arg)
{
    pthread_attr_t attr;

    if (!stack_bytes)
        return -pthread_create(ret_thread, NULL, main, arg);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, stack_bytes);
    int r = -pthread_create(ret_thread, &attr, main, arg);
    pthread_attr_destroy(&attr);
    return r;
}
