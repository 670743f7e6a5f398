#include "workers.h"

#include "../store/scope.h"
#include "../store/thread.h"

struct workers {
    pthread_mutex_t lock;      /* guards what follows */
    pthread_cond_t work_added; /* … or stopping */
    pthread_cond_t room;       /* a limit is less near */
    struct work *first, **last;
    unsigned waiting, max_waiting;
    size_t bytes, max_bytes;
    bool stopping;
    unsigned nthreads;
    pthread_t thread[];
};

static struct work *take_work(struct workers *w)
{
    scope_lock(&w->lock);
    while (!w->first && !w->stopping)
        pthread_cond_wait(&w->work_added, &w->lock);
    struct work *work = w->first;
    if (!work)
        return NULL;
    w->first = work->next;
    if (!w->first)
        w->last = &w->first;
    w->waiting--;
    pthread_cond_signal(&w->room);
    return work;
}

static void *run_thread(void *arg)
{
    struct workers *w = arg;

    for (struct work *work; (work = take_work(w));) {
        size_t bytes = work->bytes;
        work->run(work);
        scope_lock(&w->lock);
        w->bytes -= bytes;
        if (bytes)
            pthread_cond_broadcast(&w->room);
    }
    return NULL;
}

int workers_new(unsigned nthreads, unsigned max_waiting, size_t max_bytes,
                struct workers **ret_workers)
{
    struct workers *w = calloc(1, sizeof *w + nthreads * sizeof w->thread[0]);

    if (!w)
        return -ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work_added, NULL);
    pthread_cond_init(&w->room, NULL);
    w->last = &w->first;
    w->max_waiting = max_waiting;
    w->max_bytes = max_bytes;
    for (; w->nthreads < nthreads; w->nthreads++) {
        int err = thread_start(&w->thread[w->nthreads], run_thread, w);
        if (err) {
            workers_free(w);
            return err;
        }
    }
    *ret_workers = w;
    return 0;
}

void workers_run(struct workers *w, struct work *work)
{
    scope_lock(&w->lock);
    INVARIANT(!w->stopping);
    while (w->waiting >= w->max_waiting || (w->bytes && w->bytes + work->bytes > w->max_bytes))
        pthread_cond_wait(&w->room, &w->lock);
    w->bytes += work->bytes;
    w->waiting++;
    work->next = NULL;
    *w->last = work;
    w->last = &work->next;
    pthread_cond_signal(&w->work_added);
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->work_added);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->nthreads; i++)
        pthread_join(w->thread[i], NULL);
    pthread_cond_destroy(&w->room);
    pthread_cond_destroy(&w->work_added);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
