#include "conn.h"

#include "../../store/scope.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void sleep_us(int64_t us)
{
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    while (us > 0 && clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
        ;
}

/* ------------------------------------------------------------------ bytes */

int conn_open(struct conn *conn, SSL_CTX *tls)
{
    struct timeval idle = {.tv_sec = CONN_IDLE_S};
    int fd = conn->fd;

    conn->head = malloc(CONN_HEAD_SIZE + 1);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &idle, sizeof idle);
    conn->ssl = tls ? SSL_new(tls) : NULL;
    if (!conn->head || (tls && !conn->ssl))
        return -ENOMEM;
    if (tls && (SSL_set_fd(conn->ssl, fd) != 1 || SSL_accept(conn->ssl) != 1))
        return -EPIPE;
    return 0;
}

void conn_close(struct conn *conn)
{
    SSL_free(conn->ssl);
    free(conn->head);
    close(conn->fd);
}

void conn_shut(struct conn *conn)
{
    (void)shutdown(conn->fd, SHUT_RDWR);
}

/* Waits so long that `n` more bytes keep to the speed. */
static void pace(struct conn *conn, size_t n)
{
    int64_t now = now_us();

    if (!conn->bandwidth)
        return;
    conn->busy_until_us = MAX(conn->busy_until_us, now) + (int64_t)(n * 1000000 / conn->bandwidth);
    sleep_us(conn->busy_until_us - now);
}

static ssize_t read_some(struct conn *conn, char *buf, size_t len)
{
    ssize_t n;

    if (conn->bandwidth)
        len = MIN(len, (size_t)CONN_PIECE_BYTES);
    if (conn->ssl)
        n = SSL_read(conn->ssl, buf, (int)MIN(len, (size_t)1 << 30));
    else
        do
            n = read(conn->fd, buf, len);
        while (n < 0 && errno == EINTR);
    if (n > 0)
        pace(conn, (size_t)n);
    return n > 0 ? n : -EPIPE;
}

static int write_tls(struct conn *conn, const struct iovec *v)
{
    return SSL_write(conn->ssl, v->iov_base, (int)v->iov_len) == (int)v->iov_len ? 0 : -EPIPE;
}

static int write_all(struct conn *conn, struct iovec *v, int n)
{
    while (n) {
        ssize_t done;
        if (!v->iov_len) {
            v++, n--;
            continue;
        }
        struct iovec piece = *v;
        piece.iov_len =
            MIN(v->iov_len, conn->bandwidth ? (size_t)CONN_PIECE_BYTES : (size_t)1 << 30);
        if (conn->ssl)
            done = write_tls(conn, &piece) == 0 ? (ssize_t)piece.iov_len : -1;
        else
            done = conn->bandwidth ? writev(conn->fd, &piece, 1) : writev(conn->fd, v, n);
        if (done < 0 && errno == EINTR && !conn->ssl)
            continue;
        if (done < 0)
            return -EPIPE;
        pace(conn, (size_t)done);
        for (size_t left = (size_t)done; left;) {
            size_t k = MIN(left, v->iov_len);
            v->iov_base = (char *)v->iov_base + k;
            v->iov_len -= k;
            left -= k;
            if (!v->iov_len)
                v++, n--;
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ requests */

const char *request_header(const struct request *request, const char *name)
{
    for (size_t i = 0; i < request->nheaders; i++)
        if (strcasecmp(request->headers[i].name, name) == 0)
            return request->headers[i].value;
    return NULL;
}

void request_free(struct request *request)
{
    free(request->body);
    request->body = NULL;
}

static char *end_of_head(struct conn *conn)
{
    conn->head[conn->have] = 0;
    char *end = memmem(conn->head, conn->have, "\r\n\r\n", 4);
    return end ? end + 4 : NULL;
}

/* Takes "LINE\r\n" off `*text`. */
static char *next_line(char **text)
{
    char *line = *text, *end = strstr(line, "\r\n");

    *end = 0;
    *text = end + 2;
    return line;
}

static int parse_head(char *text, struct request *request)
{
    char *line = next_line(&text), *target, *version;

    request->method = strsep(&line, " ");
    target = strsep(&line, " ");
    version = line;
    if (!target || target[0] != '/' || !version || strncmp(version, "HTTP/1.", 7) != 0)
        return -EBADMSG;
    request->path = strsep(&target, "?");
    request->query = target ? target : version + strlen(version);
    while (*(line = next_line(&text))) {
        char *value = line, *name = strsep(&value, ":");
        if (!value || !*name || request->nheaders == SIGV4_PAIRS_MAX)
            return -EBADMSG;
        value += strspn(value, " \t");
        request->headers[request->nheaders++] = (struct sigv4_pair){name, value};
    }
    const char *connection = request_header(request, "connection");
    request->keep_alive =
        strcmp(version, "HTTP/1.1") == 0 && !(connection && strcasecmp(connection, "close") == 0);
    return 0;
}

int conn_read_head(struct conn *conn, struct request *ret_request)
{
    char *end;

    memset(ret_request, 0, sizeof *ret_request);
    conn->in = 0;
    conn->have -= conn->used;
    memmove(conn->head, conn->head + conn->used, conn->have);
    conn->used = 0;
    while (!(end = end_of_head(conn))) {
        if (conn->have == CONN_HEAD_SIZE)
            return -EMSGSIZE;
        ssize_t n = read_some(conn, conn->head + conn->have, CONN_HEAD_SIZE - conn->have);
        if (n < 0)
            return (int)n;
        conn->have += (size_t)n;
        if (conn->head[0] < 'A' || conn->head[0] > 'Z')
            return -EBADMSG; /* TLS, perhaps, which would go on waiting */
    }
    conn->used = (size_t)(end - conn->head);
    return parse_head(conn->head, ret_request);
}

static int body_length(const struct request *request, uint64_t *ret_len)
{
    const char *length = request_header(request, "content-length");
    char *end;

    *ret_len = 0;
    if (request_header(request, "transfer-encoding"))
        return -ENOTSUP;
    if (!length)
        return 0;
    *ret_len = strtoull(length, &end, 10);
    if (*end || end == length)
        return -ENOTSUP;
    return *ret_len > CONN_BODY_MAX ? -EMSGSIZE : 0;
}

int conn_read_body(struct conn *conn, struct request *request, uint64_t limit)
{
    const char *expect = request_header(request, "expect");
    uint64_t len;
    int r = body_length(request, &len);

    if (r < 0)
        return r;
    request->body = malloc(len + 1);
    if (!request->body)
        return -EPIPE;
    size_t at = MIN(MIN(len, limit), conn->have - conn->used);
    memcpy(request->body, conn->head + conn->used, at);
    conn->used += at;
    if (expect && at < len && strcasecmp(expect, "100-continue") == 0) {
        struct iovec v = {"HTTP/1.1 100 Continue\r\n\r\n", 25};
        r = write_all(conn, &v, 1);
    }
    while (r == 0 && at < len && at < limit) {
        ssize_t n = read_some(conn, request->body + at, MIN(len, limit) - at);
        if (n < 0)
            r = (int)n;
        else
            at += (size_t)n;
    }
    conn->in = at;
    if (r == 0 && at < len)
        r = -EPIPE;
    request->body[at] = 0;
    request->body_len = at;
    return r;
}

/* ------------------------------------------------------------------ answers */

void answer_header(struct answer *answer, const char *fmt, ...)
{
    size_t len = strlen(answer->headers);
    va_list ap;

    va_start(ap, fmt);
    INVARIANT(vformat(answer->headers + len, sizeof answer->headers - len - 2, fmt, ap) == 0);
    va_end(ap);
    strcat(answer->headers, "\r\n");
}

void answer_free(struct answer *answer)
{
    free(answer->text);
    object_unref(answer->object);
}

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {{200, "OK"},
                   {204, "No Content"},
                   {206, "Partial Content"},
                   {400, "Bad Request"},
                   {403, "Forbidden"},
                   {404, "Not Found"},
                   {409, "Conflict"},
                   {411, "Length Required"},
                   {412, "Precondition Failed"},
                   {416, "Requested Range Not Satisfiable"},
                   {429, "Too Many Requests"},
                   {500, "Internal Server Error"},
                   {501, "Not Implemented"},
                   {503, "Slow Down"}};

    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Unknown";
}

int conn_write(struct conn *conn, const struct request *request, const struct answer *answer,
               uint64_t limit)
{
    static atomic_uint id;
    char head[2048], date[64];
    time_t now = time(NULL) + conn->clock_ahead_s;
    struct tm tm;
    bool bare = answer->status == 204 || answer->status == 304;
    uint64_t len = answer->body && !bare ? answer->body_len : 0;

    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d %s\r\nServer: s3d\r\nDate: %s\r\nx-amz-request-id: %016X\r\n%s",
                     answer->status, reason(answer->status), date, ++id, answer->headers);
    if (!bare)
        n += snprintf(head + n, sizeof head - (size_t)n, "Content-Length: %llu\r\n",
                      (unsigned long long)answer->body_len);
    n += snprintf(head + n, sizeof head - (size_t)n, "%s\r\n",
                  request->keep_alive ? "" : "Connection: close\r\n");
    struct iovec v[2] = {{head, (size_t)n}, {(char *)answer->body, MIN(len, limit)}};
    int r = write_all(conn, v, 2);
    return r == 0 && limit < len ? -EPIPE : r;
}

void conn_hang(struct conn *conn, const atomic_uint *generation, unsigned seen)
{
    struct pollfd p = {.fd = conn->fd, .events = POLLRDHUP};

    while (*generation == seen && poll(&p, 1, 50) == 0)
        ;
}
