#include "session.h"

#include "../store/clock.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/thread.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

/* Since 7.39: an image that is opened for direct I/O may be mapped shared all the same. Not known
 * to libfuse 3.14, so it is set in the answer to INIT on its way out. */
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (UINT64_C(1) << 36)
#endif

enum {
    RECEIVERS = 8,
    PAGE = 4096,
    /* What stands before the bytes of a WRITE. */
    WRITE_HEADER_BYTES = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in),
};
static_assert(WRITE_HEADER_BYTES == 80, "layout of a WRITE request");

struct receiver {
    pthread_t thread;
    struct session *session;
    char *request; /* ends a page in front of a page boundary, see open_buffers() */
    const struct fuse_in_header *in; /* what is being handled, or NULL */
};

struct session {
    struct fuse_session *fuse;
    bool mounted;
    bool map_direct;
    void (*ended)(void *ctx);
    void *ctx;
    char *buffers;
    size_t buffers_bytes;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t receiver_ended;
    unsigned running;
    bool stopping;
    unsigned nreceivers;
    struct receiver receiver[RECEIVERS];
};

static _Thread_local struct receiver *here;
static atomic_bool maps_direct;

bool session_maps_direct(void)
{
    return atomic_load(&maps_direct);
}

void *session_reply_buffer(void)
{
    INVARIANT(here);
    return here->request + WRITE_HEADER_BYTES;
}

/* ---------------------------------------------------------------------------- talking */

/* Adds what libfuse does not know to the answer to INIT, if the kernel offered it. */
static void extend_init(const struct fuse_in_header *in, const struct iovec *iov, int count)
{
    const struct fuse_init_in *offer = (const void *)(in + 1);
    const struct fuse_out_header *out = iov[0].iov_base;
    struct fuse_init_out *answer = count > 1 ? iov[1].iov_base : NULL;

    if (out->error || !answer || iov[1].iov_len < sizeof *answer ||
        in->len < sizeof *in + sizeof *offer || !(offer->flags & FUSE_INIT_EXT))
        return;
    uint32_t bit = FUSE_DIRECT_IO_ALLOW_MMAP >> 32;
    if (offer->flags2 & bit && here->session->map_direct) {
        answer->flags |= FUSE_INIT_EXT;
        answer->flags2 |= bit;
        atomic_store(&maps_direct, true);
    }
}

static ssize_t send_answer(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    if (here && here->in && here->in->opcode == FUSE_INIT)
        extend_init(here->in, iov, count);
    return writev(fd, iov, count);
}

/* libfuse insists on having one; receive() reads itself. */
static ssize_t read_device(int fd, void *buf, size_t len, void *userdata)
{
    (void)userdata;
    return read(fd, buf, len);
}

/* ---------------------------------------------------------------------------- receiving */

static bool stopping(struct session *s)
{
    scope_lock(&s->lock);
    return s->stopping;
}

/* One request after the other, until the mount is gone or session_stop(). */
static void receive(struct receiver *r)
{
    struct session *s = r->session;
    int fd = fuse_session_fd(s->fuse);

    while (!stopping(s)) {
        ssize_t n = read(fd, r->request, WRITE_HEADER_BYTES + SESSION_IO_MAX);
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
            continue; /* ENOENT: whoever asked has gone */
        if (n < 0 && errno != ENODEV)
            msg_error(-errno, "/dev/fuse: %s", strerror(errno));
        if (n < (ssize_t)sizeof *r->in)
            break;
        r->in = (const void *)r->request;
        fuse_session_process_buf(s->fuse, &(struct fuse_buf){.mem = r->request, .size = (size_t)n});
        r->in = NULL;
    }
}

void session_hold_signals(bool hold)
{
    sigset_t wake;

    sigemptyset(&wake);
    sigaddset(&wake, SIGUSR1);
    pthread_sigmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &wake, NULL);
}

static void *run_receiver(void *arg)
{
    struct receiver *r = arg;
    struct session *s = r->session;
    bool last;

    here = r;
    session_hold_signals(false);
    receive(r);
    fuse_session_exit(s->fuse); /* from now on failing answers are no news */
    {
        scope_lock(&s->lock);
        last = --s->running == 0;
        pthread_cond_signal(&s->receiver_ended);
    }
    if (last)
        s->ended(s->ctx);
    return NULL;
}

static void ignore_signal(int sig)
{
    (void)sig;
}

void session_stop(struct session *s)
{
    {
        scope_lock(&s->lock);
        s->stopping = true;
        /* A signal that comes just before read() is lost, hence again and again. */
        while (s->running) {
            for (unsigned i = 0; i < s->nreceivers; i++)
                pthread_kill(s->receiver[i].thread, SIGUSR1);
            clock_system.wait_until(&s->receiver_ended, &s->lock, clock_system.now_ms() + 20);
        }
    }
    for (unsigned i = 0; i < s->nreceivers; i++)
        pthread_join(s->receiver[i].thread, NULL);
    s->nreceivers = 0;
}

/* ---------------------------------------------------------------------------- opening */

static char fuse_said[256]; /* the newest complaint of libfuse; session_open() only */

static void keep_complaint(enum fuse_log_level level, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
static void keep_complaint(enum fuse_log_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)vsnprintf(fuse_said, sizeof fuse_said, fmt, ap);
    fuse_said[strcspn(fuse_said, "\n")] = 0;
    msg_debug("libfuse: %s", fuse_said);
}

static int mount_fuse(struct session *s, const struct session_config *config)
{
    static const struct fuse_custom_io io = {.writev = send_answer, .read = read_device};
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    char *opts = NULL, source[1100];
    int r = -ENOMEM;

    fuse_set_log_func(keep_complaint);
    if (format(source, sizeof source, "fsname=%s", config->source) < 0)
        return msg_error(-ENAMETOOLONG, "%.100s…: the URL is too long", config->source);
    if (fuse_opt_add_opt_escaped(&opts, source) < 0 ||
        fuse_opt_add_opt(&opts, "subtype=s3vol,default_permissions") < 0 ||
        (config->allow_other && fuse_opt_add_opt(&opts, "allow_other") < 0) ||
        (config->read_only && fuse_opt_add_opt(&opts, "ro") < 0) ||
        fuse_opt_add_arg(&args, "s3vol") < 0 || fuse_opt_add_arg(&args, "-o") < 0 ||
        fuse_opt_add_arg(&args, opts) < 0)
        goto out;
    s->fuse = fuse_session_new(&args, config->ops, sizeof *config->ops, config->userdata);
    if (!s->fuse)
        goto out;
    r = -EIO;
    if (fuse_session_mount(s->fuse, config->dir) < 0)
        goto out;
    s->mounted = true;
    r = fuse_session_custom_io(s->fuse, &io, fuse_session_fd(s->fuse));
out:
    if (r < 0) /* if libfuse has nothing to say, fusermount3 said it on stderr */
        msg_error(r, "%s: cannot mount there%s%s", config->dir, *fuse_said ? ": " : "", fuse_said);
    fuse_opt_free_args(&args);
    free(opts);
    return r;
}

/* One piece of memory for all: for each receiver a page whose last 80 bytes take the headers of a
 * WRITE, and behind it, aligned, the bytes of the WRITE; or those of the answer to a READ, whose
 * request is short. */
static int open_buffers(struct session *s)
{
    size_t each = PAGE + SESSION_IO_MAX;

    s->buffers_bytes = RECEIVERS * each;
    s->buffers = mmap(NULL, s->buffers_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (s->buffers == MAP_FAILED) {
        s->buffers = NULL;
        return msg_error(-ENOMEM, "mount: out of memory");
    }
    for (unsigned i = 0; i < RECEIVERS; i++) {
        s->receiver[i].request = s->buffers + i * each + PAGE - WRITE_HEADER_BYTES;
        s->receiver[i].session = s;
    }
    return 0;
}

static int start_receivers(struct session *s)
{
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = ignore_signal}, NULL);
    scope_lock(&s->lock);
    for (; s->nreceivers < RECEIVERS; s->nreceivers++, s->running++) {
        struct receiver *r = &s->receiver[s->nreceivers];
        int err = thread_start(&r->thread, run_receiver, r);
        if (err)
            return msg_error(err, "mount: cannot start a thread: %s", strerror(-err));
    }
    return 0;
}

int session_open(const struct session_config *config, struct session **ret_session)
{
    struct session *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    pthread_mutex_init(&s->lock, NULL);
    clock_cond_init(&s->receiver_ended);
    s->map_direct = config->map_direct;
    s->ended = config->ended;
    s->ctx = config->ctx;
    int r = open_buffers(s);
    if (r == 0)
        r = mount_fuse(s, config);
    if (r == 0)
        r = start_receivers(s);
    if (r < 0) {
        session_stop(s);
        if (s->mounted)
            fuse_session_unmount(s->fuse);
        s->mounted = false;
        session_free(s);
        return r;
    }
    *ret_session = s;
    return 0;
}

/* Closes the connection: whoever still uses the image gets ENOTCONN. libfuse does it together with
 * unmounting, and would complain that nothing is mounted any more; an end of a pipe without another
 * end, in the place of the device, tells it that the connection is gone. */
static void disconnect(struct session *s)
{
    int broken[2];

    if (pipe2(broken, O_CLOEXEC) == 0) {
        close(broken[0]);
        dup3(broken[1], fuse_session_fd(s->fuse), O_CLOEXEC);
        close(broken[1]);
    }
    fuse_session_unmount(s->fuse);
}

void session_free(struct session *s)
{
    if (!s)
        return;
    if (s->mounted)
        disconnect(s);
    if (s->fuse)
        fuse_session_destroy(s->fuse);
    if (s->buffers)
        munmap(s->buffers, s->buffers_bytes);
    pthread_cond_destroy(&s->receiver_ended);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
