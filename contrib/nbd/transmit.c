#include "transmit.h"

#include "../../store/msg.h"
#include "../../store/scope.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

enum {
    IDLE_MS = 10000,          /* then a worker that is not the first ends */
    STACK_BYTES = 256 * 1024, /* OpenSSL wants some */
};

/* Why a worker was woken. */
enum event { SOCKET, NEXT, STOP };

struct conn {
    struct service service;
    struct transmit_shared *shared;
    int epoll, next;              /* next: an eventfd, for what is in the buffer already */
    pthread_mutex_t receive_lock; /* the role of the receiver */
    atomic_bool ended;            /* nothing more is received */
    atomic_int waiting;           /* workers in epoll_wait() */
    pthread_mutex_t lock;         /* guards what follows */
    pthread_cond_t left;
    unsigned workers; /* but for the first */
};

static void *run_worker(void *arg);

/* ----------------------------------------------------------------------------- waking others */

static void arm(struct conn *c)
{
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.u32 = SOCKET};

    INVARIANT(epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->service.stream->in, &e) == 0);
}

static void wake_one(struct conn *c)
{
    INVARIANT(eventfd_write(c->next, 1) == 0);
}

/* From now on everybody is woken. */
static void end(struct conn *c)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = NEXT};

    c->ended = true;
    INVARIANT(epoll_ctl(c->epoll, EPOLL_CTL_MOD, c->next, &e) == 0);
    wake_one(c);
}

static void start_worker(struct conn *c)
{
    pthread_attr_t attr;
    pthread_t thread;

    scope_lock(&c->lock);
    if (c->workers == TRANSMIT_WORKERS_MAX - 1)
        return;
    if (atomic_fetch_sub(&c->shared->spare, 1) > 0) {
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, STACK_BYTES);
        int err = pthread_create(&thread, &attr, run_worker, c);
        pthread_attr_destroy(&attr);
        if (err == 0) {
            c->workers++;
            return;
        }
    }
    atomic_fetch_add(&c->shared->spare, 1);
}

/* Whoever waits, or waits next, is the receiver. */
static void pass_role(struct conn *c)
{
    bool more = stream_has_more(c->service.stream);

    if (c->waiting == 0)
        start_worker(c);
    pthread_mutex_unlock(&c->receive_lock); /* first, or who is woken would have to wait for it */
    if (more)
        wake_one(c);
    else
        arm(c);
}

/* ----------------------------------------------------------------------------- workers */

/* Waits for an event. False: for too long, and there is somebody else who waits. */
static bool wait_for_event(struct conn *c, int timeout_ms, struct epoll_event *ret_event)
{
    int n;

    do {
        c->waiting++;
        do
            n = epoll_wait(c->epoll, ret_event, 1, timeout_ms);
        while (n < 0 && errno == EINTR);
    } while (atomic_fetch_sub(&c->waiting, 1) == 1 && n == 0);
    return n > 0;
}

/* Waits until there is something to receive. False: for too long, or it is the end. */
static bool wait_for_role(struct conn *c, int timeout_ms)
{
    struct epoll_event e;

    if (!wait_for_event(c, timeout_ms, &e) || c->ended)
        return false;
    pthread_mutex_lock(&c->receive_lock);
    if (e.data.u32 == STOP && !c->ended)
        end(c);
    if (!c->ended)
        return true;
    pthread_mutex_unlock(&c->receive_lock);
    return false;
}

/* As the receiver: one request. False: the end. The role has been passed on. */
static bool serve_one(struct conn *c, struct job *job)
{
    int r;

    do
        r = serve_receive(&c->service, job);
    while (r == 0 && job->answered && stream_has_more(c->service.stream));
    if (r < 0) {
        msg_debug("%s: a client has left: %s", c->service.session.export->name,
                  r == -ECONNABORTED ? "good-bye" : strerror(-r));
        end(c);
        pthread_mutex_unlock(&c->receive_lock);
        return false;
    }
    pass_role(c);
    if (serve_do(&c->service, job) < 0) {
        /* Nothing can be sent any more: whoever receives must notice. */
        (void)shutdown(c->service.stream->out, SHUT_RDWR);
        end(c);
        return false;
    }
    return true;
}

static void work(struct conn *c, int timeout_ms)
{
    struct job job = {0};

    while (wait_for_role(c, timeout_ms) && serve_one(c, &job))
        ;
    job_free(&job);
}

static void *run_worker(void *arg)
{
    struct conn *c = arg;

    work(c, IDLE_MS);
    atomic_fetch_add(&c->shared->spare, 1);
    scope_lock(&c->lock);
    c->workers--;
    pthread_cond_signal(&c->left);
    return NULL;
}

/* ----------------------------------------------------------------------------- life */

static int watch(struct conn *c, int fd, uint32_t events, enum event what)
{
    struct epoll_event e = {.events = events, .data.u32 = what};

    return epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

/* What is no socket cannot be shut down, so that somebody must watch out for the end. */
static int watch_stop(struct conn *c)
{
    int type;
    socklen_t len = sizeof type;

    if (getsockopt(c->service.stream->in, SOL_SOCKET, SO_TYPE, &type, &len) == 0)
        return 0;
    return watch(c, c->shared->stop, EPOLLIN | EPOLLONESHOT, STOP);
}

static int prepare(struct conn *c)
{
    bool more = stream_has_more(c->service.stream);
    int r;

    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    c->next = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->epoll < 0 || c->next < 0)
        return -errno;
    if ((r = watch(c, c->next, EPOLLIN | EPOLLET, NEXT)) < 0 || (r = watch_stop(c)) < 0)
        return r;
    r = watch(c, c->service.stream->in, (more ? 0 : EPOLLIN) | EPOLLONESHOT, SOCKET);
    if (r == 0 && more)
        wake_one(c);
    return r;
}

void transmit(struct transmit_shared *shared, struct stream *stream, const struct session *session)
{
    struct conn c = {.shared = shared, .epoll = -1, .next = -1};

    service_init(&c.service, stream, session, &shared->stopping);
    pthread_mutex_init(&c.receive_lock, NULL);
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.left, NULL);
    int r = prepare(&c);
    if (r == 0)
        work(&c, -1);
    else
        msg_warn("a connection cannot be served: %s", strerror(-r));
    pthread_mutex_lock(&c.lock);
    while (c.workers)
        pthread_cond_wait(&c.left, &c.lock);
    pthread_mutex_unlock(&c.lock);
    if (c.next >= 0)
        close(c.next);
    if (c.epoll >= 0)
        close(c.epoll);
    pthread_cond_destroy(&c.left);
    pthread_mutex_destroy(&c.lock);
    pthread_mutex_destroy(&c.receive_lock);
    service_destroy(&c.service);
}
