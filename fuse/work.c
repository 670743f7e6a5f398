#include "work.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "control.h"

#include <signal.h>
#include <string.h>
#include <time.h>

enum { LOOK_MS = 500 };

struct work {
    int (*run)(struct work *work, void *ctx);
    void *ctx;
    pthread_t watcher;
    int result;           /* for the watcher, when the thread has ended */
    pthread_mutex_t lock; /* guards what follows */
    struct volume *volume;
    uint64_t left_bytes;
    bool stopped, ended;
};

static void *run(void *arg)
{
    struct work *w = arg;

    w->result = w->run(w, w->ctx);
    scope_lock(&w->lock);
    w->ended = true;
    pthread_kill(w->watcher, SIGUSR2);
    return NULL;
}

void work_set_volume(struct work *w, struct volume *volume)
{
    scope_lock(&w->lock);
    w->volume = volume;
    if (volume && w->stopped)
        volume_stop(volume);
}

void work_set_left(struct work *w, uint64_t bytes)
{
    scope_lock(&w->lock);
    w->left_bytes = bytes;
}

bool work_is_stopped(struct work *w)
{
    scope_lock(&w->lock);
    return w->stopped;
}

static void stop(struct work *w)
{
    scope_lock(&w->lock);
    w->stopped = true;
    if (w->volume)
        volume_stop(w->volume);
}

/* False: it has ended. */
static bool look(struct work *w, struct control_progress *progress)
{
    struct volume_status status;

    scope_lock(&w->lock);
    if (w->volume && !w->stopped) {
        volume_get_status(w->volume, &status);
        control_show_left(progress, w->left_bytes + status.dirty_bytes + status.flatten_bytes,
                          "left to copy");
    }
    return !w->ended;
}

/* The second signal does what it does by default, and so do later ones. */
static void watch(struct work *w, const sigset_t *ending)
{
    struct timespec pause = {.tv_nsec = LOOK_MS * 1000000};
    struct control_progress progress = {0};
    sigset_t set = *ending;

    sigaddset(&set, SIGUSR2);
    while (look(w, &progress)) {
        int sig = sigtimedwait(&set, NULL, &pause);
        if (sig < 0 || sig == SIGUSR2)
            continue;
        control_shown(&progress);
        stop(w);
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        pthread_sigmask(SIG_UNBLOCK, ending, NULL);
    }
    control_shown(&progress);
}

/* Those that end a process; but what nohup ignores stays ignored. */
static void fill_ending(sigset_t *ret_set)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action;

    sigemptyset(ret_set);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(ret_set, signals[i]);
}

int work_run(int (*fn)(struct work *work, void *ctx), void *ctx)
{
    struct work w = {.run = fn, .ctx = ctx, .watcher = pthread_self()};
    sigset_t over, ending, before;
    pthread_t thread;

    fill_ending(&ending);
    sigemptyset(&over);
    sigaddset(&over, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &ending, &before);
    pthread_sigmask(SIG_BLOCK, &over, NULL);
    signal(SIGPIPE, SIG_IGN);
    pthread_mutex_init(&w.lock, NULL);
    int r = -pthread_create(&thread, NULL, run, &w);
    if (r == 0) {
        watch(&w, &ending);
        pthread_join(thread, NULL);
        (void)sigtimedwait(&over, NULL, &(struct timespec){0}); /* it may still be pending */
        r = w.result;
    } else {
        msg_error(r, "cannot start a thread: %s", strerror(-r));
    }
    pthread_mutex_destroy(&w.lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}
