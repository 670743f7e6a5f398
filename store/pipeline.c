#include "pipeline.h"

#include "scope.h"
#include "thread.h"

struct pipeline {
    const struct pipeline_ops *ops;
    void *ctx;
    size_t n;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t moved;
    size_t taken, used; /* the next item to be made, to be used */
    bool stop;
    struct {
        bool ready;
        void *item;
    } slots[PIPELINE_AHEAD]; /* by item number modulo PIPELINE_AHEAD */
};

static void *maker_main(void *arg)
{
    struct pipeline *p = arg;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->taken < p->n && p->taken >= p->used + PIPELINE_AHEAD)
            pthread_cond_wait(&p->moved, &p->lock);
        if (p->stop || p->taken == p->n)
            break;
        size_t i = p->taken++;
        pthread_mutex_unlock(&p->lock);
        void *item = p->ops->make(p->ctx, i);
        pthread_mutex_lock(&p->lock);
        p->slots[i % PIPELINE_AHEAD].ready = true;
        p->slots[i % PIPELINE_AHEAD].item = item;
        pthread_cond_broadcast(&p->moved);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void *wait_for_item(struct pipeline *p, size_t i)
{
    scope_lock(&p->lock);
    while (!p->slots[i % PIPELINE_AHEAD].ready)
        pthread_cond_wait(&p->moved, &p->lock);
    p->slots[i % PIPELINE_AHEAD].ready = false;
    p->used = i + 1;
    pthread_cond_broadcast(&p->moved);
    return take(p->slots[i % PIPELINE_AHEAD].item);
}

int pipeline_run(size_t n, const struct pipeline_ops *ops, void *ctx)
{
    struct pipeline p = {.ops = ops, .ctx = ctx, .n = n};
    pthread_t threads[PIPELINE_THREADS];
    unsigned nthreads = 0;
    int r = 0;

    pthread_mutex_init(&p.lock, NULL);
    pthread_cond_init(&p.moved, NULL);
    while (nthreads < MIN(n, (size_t)PIPELINE_THREADS) &&
           thread_start(&threads[nthreads], maker_main, &p) == 0)
        nthreads++;
    if (n > 0 && nthreads == 0)
        r = -EAGAIN;
    for (size_t i = 0; i < n && r == 0; i++) {
        void *item = wait_for_item(&p, i);
        r = item ? ops->use(ctx, i, item) : -ENOMEM;
        if (item)
            ops->drop(item);
    }
    pthread_mutex_lock(&p.lock);
    p.stop = true;
    pthread_cond_broadcast(&p.moved);
    pthread_mutex_unlock(&p.lock);
    while (nthreads > 0)
        pthread_join(threads[--nthreads], NULL);
    for (size_t i = 0; i < PIPELINE_AHEAD; i++)
        if (p.slots[i].item)
            ops->drop(p.slots[i].item);
    pthread_cond_destroy(&p.moved);
    pthread_mutex_destroy(&p.lock);
    return r;
}
