#include "server.h"

#include "../../store/msg.h"
#include "../../store/scope.h"
#include "tls.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

enum { STACK_BYTES = 256 * 1024 };

struct connection {
    struct server *server;
    int in, out;
    struct stream stream;
    struct connection *next;
};

struct server {
    struct server_config config;
    struct transmit_shared shared;
    int left_fd;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t left;
    struct connection *first;
    unsigned count;
};

int server_new(const struct server_config *config, struct server **ret_server)
{
    struct server *server = calloc(1, sizeof *server);
    pthread_condattr_t attr;

    if (!server)
        return -ENOMEM;
    server->config = *config;
    server->shared.spare = SERVER_SPARE_WORKERS;
    server->shared.stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->left_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&server->left, &attr);
    pthread_condattr_destroy(&attr);
    if (server->shared.stop < 0 || server->left_fd < 0) {
        int err = -errno;
        server_free(server);
        return err;
    }
    *ret_server = server;
    return 0;
}

/* ----------------------------------------------------------------------------- a connection */

static void close_files(int in, int out)
{
    close(in);
    if (out != in)
        close(out);
}

static void serve(struct connection *c)
{
    struct server *server = c->server;
    const struct negotiate_config config = {
        .exports = server->config.exports,
        .tls = server->config.tls,
        .start_tls = tls_start,
        .stopping = &server->shared.stopping,
    };
    struct session session;

    stream_init(&c->stream, c->in, c->out);
    c->stream.patience_ms = SERVER_HANDSHAKE_MS;
    int r = negotiate(&config, &c->stream, &session);
    if (r == 0) {
        msg_debug("%s: a client has come", session.export->name);
        stream_be_patient(&c->stream);
        transmit(&server->shared, &c->stream, &session);
        exports_release(server->config.exports, session.export);
    } else if (r != -ECONNABORTED && r != -ECONNRESET) {
        msg_debug("a client is turned away: %s", strerror(-r));
    }
    tls_end(&c->stream);
}

static void *run_connection(void *arg)
{
    struct connection *c = arg;
    struct server *server = c->server;

    serve(c);
    scope_lock(&server->lock);
    struct connection **at = &server->first;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    server->count--;
    (void)shutdown(c->out, SHUT_WR);
    close_files(c->in, c->out);
    free(c);
    (void)eventfd_write(server->left_fd, 1);
    pthread_cond_signal(&server->left);
    return NULL;
}

/* Small messages at once, and a sign of life of the other machine now and then. */
static void prepare_socket(int fd)
{
    int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

int server_serve(struct server *server, int in, int out)
{
    struct connection *c = calloc(1, sizeof *c);
    pthread_attr_t attr;
    pthread_t thread;

    if (!c) {
        close_files(in, out);
        return -ENOMEM;
    }
    prepare_socket(out);
    *c = (struct connection){.server = server, .in = in, .out = out};
    scope_lock(&server->lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int err = pthread_create(&thread, &attr, run_connection, c);
    pthread_attr_destroy(&attr);
    if (err) {
        close_files(in, out);
        free(c);
        return -err;
    }
    c->next = server->first;
    server->first = c;
    server->count++;
    return 0;
}

/* ----------------------------------------------------------------------------- all of them */

unsigned server_connections(struct server *server)
{
    scope_lock(&server->lock);
    return server->count;
}

int server_left_fd(const struct server *server)
{
    return server->left_fd;
}

void server_noticed(struct server *server)
{
    eventfd_t n;

    (void)eventfd_read(server->left_fd, &n);
}

static void shut_locked(struct server *server, int how)
{
    for (struct connection *c = server->first; c; c = c->next)
        (void)shutdown(how == SHUT_RD ? c->in : c->out, how);
}

static void stop(struct server *server)
{
    struct timespec until;

    server->shared.stopping = true;
    (void)eventfd_write(server->shared.stop, 1);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SERVER_STOP_MS / 1000;
    scope_lock(&server->lock);
    shut_locked(server, SHUT_RD);
    while (server->count)
        if (pthread_cond_timedwait(&server->left, &server->lock, &until) == ETIMEDOUT)
            break;
    shut_locked(server, SHUT_RDWR);
    while (server->count)
        pthread_cond_wait(&server->left, &server->lock);
}

void server_free(struct server *server)
{
    if (!server)
        return;
    stop(server);
    if (server->shared.stop >= 0)
        close(server->shared.stop);
    if (server->left_fd >= 0)
        close(server->left_fd);
    pthread_cond_destroy(&server->left);
    pthread_mutex_destroy(&server->lock);
    free(server);
}
