#include "stream.h"

#include "../../store/scope.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* ----------------------------------------------------------------------------- files */

static ssize_t file_readv(struct stream *stream, const struct iovec *iov, int n)
{
    ssize_t got = readv(stream->in, iov, n);

    return got < 0 ? -errno : got;
}

static ssize_t file_writev(struct stream *stream, const struct iovec *iov, int n)
{
    ssize_t put = writev(stream->out, iov, n);

    return put < 0 ? -errno : put;
}

static size_t file_pending(struct stream *stream)
{
    (void)stream;
    return 0;
}

static const struct stream_ops file_ops = {file_readv, file_writev, file_pending};

static void do_not_block(int fd)
{
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void stream_init(struct stream *stream, int in, int out)
{
    stream->ops = &file_ops;
    stream->in = in;
    stream->out = out;
    stream->layer = NULL;
    stream->patience_ms = -1;
    stream->begin = stream->end = 0;
    do_not_block(in);
    if (out != in)
        do_not_block(out);
}

static bool is_socket(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

void stream_be_patient(struct stream *stream)
{
    stream->patience_ms = -1;
    if (stream->ops != &file_ops || !is_socket(stream->in) || !is_socket(stream->out))
        return;
    (void)fcntl(stream->in, F_SETFL, fcntl(stream->in, F_GETFL) & ~O_NONBLOCK);
    (void)fcntl(stream->out, F_SETFL, fcntl(stream->out, F_GETFL) & ~O_NONBLOCK);
}

/* ----------------------------------------------------------------------------- waiting */

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int stream_wait(struct stream *stream, int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t start = stream->patience_ms >= 0 ? now_ms() : 0;
    int r;

    do
        r = poll(&p, 1, stream->patience_ms);
    while (r < 0 && errno == EINTR);
    if (stream->patience_ms >= 0)
        stream->patience_ms = (int)MAX(0, stream->patience_ms - (now_ms() - start));
    return r == 0 ? -ETIMEDOUT : 0;
}

/* Whether it is worth another try after the error `r`: 0, or an error. */
static int try_again(struct stream *stream, ssize_t r, int fd, short events)
{
    if (r == -EINTR)
        return 0;
    return r == -EAGAIN ? stream_wait(stream, fd, events) : (int)r;
}

/* ----------------------------------------------------------------------------- receiving */

static size_t take_buffered(struct stream *stream, void *buf, size_t len)
{
    size_t n = MIN(len, stream->end - stream->begin);

    if (buf)
        memcpy(buf, stream->buffer + stream->begin, n);
    stream->begin += n;
    return n;
}

/* Receives into `buf`, and what there is beyond it into the buffer, which is empty. Returns how
 * many bytes of `buf` that were. */
static ssize_t receive_some(struct stream *stream, void *buf, size_t len)
{
    struct iovec iov[2] = {{buf, len}, {stream->buffer, sizeof stream->buffer}};

    for (;;) {
        ssize_t got = stream->ops->readv(stream, len ? iov : iov + 1, len ? 2 : 1);
        if (got == 0)
            return -ECONNRESET;
        if (got > 0) {
            size_t direct = MIN((size_t)got, len);
            stream->begin = 0;
            stream->end = (size_t)got - direct;
            return (ssize_t)direct;
        }
        int r = try_again(stream, got, stream->in, POLLIN);
        if (r < 0)
            return r;
    }
}

int stream_receive(struct stream *stream, void *buf, size_t len)
{
    unsigned char *p = buf;
    size_t have = take_buffered(stream, p, len);

    while (have < len) {
        ssize_t n = receive_some(stream, p + have, len - have);
        if (n < 0)
            return (int)n;
        have += (size_t)n;
    }
    return 0;
}

int stream_skip(struct stream *stream, size_t len)
{
    for (;;) {
        len -= take_buffered(stream, NULL, len);
        if (!len)
            return 0;
        ssize_t n = receive_some(stream, NULL, 0);
        if (n < 0)
            return (int)n;
    }
}

bool stream_has_more(struct stream *stream)
{
    return stream->begin < stream->end || stream->ops->pending(stream);
}

/* ----------------------------------------------------------------------------- sending */

int stream_send(struct stream *stream, struct iovec *iov, int n)
{
    while (n > 0) {
        ssize_t put = stream->ops->writev(stream, iov, n);
        if (put < 0) {
            int r = try_again(stream, put, stream->out, POLLOUT);
            if (r < 0)
                return r;
            continue;
        }
        for (; n > 0 && (size_t)put >= iov->iov_len; iov++, n--)
            put -= (ssize_t)iov->iov_len;
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + put;
            iov->iov_len -= (size_t)put;
        }
    }
    return 0;
}
