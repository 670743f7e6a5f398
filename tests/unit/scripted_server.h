/*
 * A listener on 127.0.0.1 that plays a script, one answer for each request, and keeps the last
 * request for the test to look at. For tests of HTTP clients; include it once.
 */
#ifndef S3VOL_SCRIPTED_SERVER_H
#define S3VOL_SCRIPTED_SERVER_H

#include "../../store/scope.h"

#include <arpa/inet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { REQUEST_MAX = 65536 };

/* One step of the script. */
struct answer {
    const char *text; /* sent as it is; NULL: none */
    bool close;       /* then closes the connection */
    bool hang;        /* says nothing more until the client goes away */
    int trickle_ms;   /* one byte at a time, so far apart */
};

struct server {
    const struct answer *script;
    size_t nanswers;
    int listener;
    pthread_t thread;
    char endpoint[64];

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    size_t nrequests, nconnections;
    char request[REQUEST_MAX];
};

/* Reads one request with its body; false at the connection's end. */
static bool read_request(int fd, char *request)
{
    size_t len = 0, want = 0;

    while (!want || len < want) {
        ssize_t n = recv(fd, request + len, REQUEST_MAX - 1 - len, 0);

        if (n <= 0)
            return false;
        len += (size_t)n;
        request[len] = '\0';
        const char *end = strstr(request, "\r\n\r\n"),
                   *length = strcasestr(request, "\nContent-Length:");
        if (end && !want)
            want = (size_t)(end + 4 - request) +
                   (length && length < end ? strtoul(length + 16, NULL, 10) : 0);
    }
    return true;
}

static bool play(int fd, const struct answer *answer)
{
    char end[16];

    for (const char *p = answer->text ? answer->text : ""; *p;) {
        size_t n = answer->trickle_ms ? 1 : strlen(p);

        if (send(fd, p, n, MSG_NOSIGNAL) != (ssize_t)n)
            return false;
        p += n;
        if (answer->trickle_ms)
            poll(NULL, 0, answer->trickle_ms);
    }
    if (answer->hang)
        while (recv(fd, end, sizeof end, 0) > 0)
            ;
    return !answer->close && !answer->hang;
}

static void *serve(void *ctx)
{
    struct server *s = ctx;
    size_t done = 0;

    while (done < s->nanswers) {
        scope_close int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        bool on = fd >= 0;

        if (fd < 0)
            break;
        while (on && done < s->nanswers) {
            char *request = malloc(REQUEST_MAX);

            if ((on = request && read_request(fd, request))) {
                pthread_mutex_lock(&s->lock);
                memcpy(s->request, request, REQUEST_MAX);
                s->nrequests++;
                pthread_cond_broadcast(&s->changed);
                pthread_mutex_unlock(&s->lock);
                on = play(fd, &s->script[done++]);
            }
            free(request);
        }
        pthread_mutex_lock(&s->lock);
        s->nconnections++;
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

static void start(struct server *s, const struct answer *script, size_t nanswers)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;

    memset(s, 0, sizeof *s);
    s->script = script;
    s->nanswers = nanswers;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->listener >= 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(
        format(s->endpoint, sizeof s->endpoint, "http://127.0.0.1:%u", ntohs(address.sin_port)), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

/* The client's connections are closed already. */
static void finish(struct server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

static void wait_for_requests(struct server *s, size_t n)
{
    pthread_mutex_lock(&s->lock);
    while (s->nrequests < n)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

#endif
