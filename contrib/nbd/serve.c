#include "serve.h"

#include "../../store/bytes.h"
#include "../../store/msg.h"
#include "../../store/scope.h"

#include <string.h>

enum {
    AT_ONCE_BYTES = 64 * 1024, /* the longest that is done by who has received it */
    EXTENTS_MAX = 4096,        /* in one reply to BLOCK_STATUS */
};
_Static_assert(EXTENTS_MAX * 8 + 4 <= REQUEST_PIECE_BYTES, "they fit a job's memory");

void service_init(struct service *service, struct stream *stream, const struct session *session,
                  const atomic_bool *stopping)
{
    service->stream = stream;
    service->session = *session;
    service->stopping = stopping;
    pthread_mutex_init(&service->send_lock, NULL);
}

void service_destroy(struct service *service)
{
    pthread_mutex_destroy(&service->send_lock);
}

void job_free(struct job *job)
{
    free(job->buf);
}

/* ----------------------------------------------------------------------------- replies */

static int send_message(struct service *s, struct iovec *iov, int n)
{
    scope_lock(&s->send_lock);
    return stream_send(s->stream, iov, n);
}

static void put_simple(unsigned char head[NBD_SIMPLE_REPLY_BYTES], const struct request *q,
                       uint32_t error)
{
    put_be64(put_be32(put_be32(head, NBD_SIMPLE_REPLY_MAGIC), error), q->cookie);
}

static int reply_simple(struct service *s, const struct request *q, uint32_t error)
{
    unsigned char head[NBD_SIMPLE_REPLY_BYTES];
    struct iovec iov = {head, sizeof head};

    put_simple(head, q, error);
    return send_message(s, &iov, 1);
}

/* One chunk: `fixed` bytes of its payload are in `more`, the others in `data`. */
static int reply_chunk(struct service *s, const struct request *q, unsigned type, bool done,
                       const void *more, size_t fixed, const void *data, size_t len)
{
    enum { FIXED_MAX = 16 };
    unsigned char head[NBD_CHUNK_BYTES + FIXED_MAX];
    struct iovec iov[2] = {{head, NBD_CHUNK_BYTES + fixed}, {(void *)data, len}};
    unsigned char *p = put_be32(head, NBD_CHUNK_MAGIC);

    INVARIANT(fixed <= FIXED_MAX);
    p = put_be16(p, done ? NBD_REPLY_FLAG_DONE : 0);
    p = put_be16(p, type);
    p = put_be32(put_be64(p, q->cookie), (uint32_t)(fixed + len));
    memcpy(p, more, fixed);
    return send_message(s, iov, len ? 2 : 1);
}

static int reply_error(struct service *s, const struct request *q, uint32_t error, const char *why)
{
    unsigned char fixed[6];

    if (!s->session.agreement.structured)
        return reply_simple(s, q, error);
    put_be16(put_be32(fixed, error), (unsigned)strlen(why));
    return reply_chunk(s, q, NBD_REPLY_TYPE_ERROR, true, fixed, sizeof fixed, why, strlen(why));
}

/* For what has no payload to send: `r` is 0 or a negative errno of the image's. */
static int reply_result(struct service *s, const struct request *q, int r)
{
    return r < 0 ? reply_error(s, q, request_error(r), strerror(-r)) : reply_simple(s, q, 0);
}

/* ----------------------------------------------------------------------------- READ */

static int send_hole(struct service *s, const struct request *q, uint64_t offset, uint64_t len,
                     bool done)
{
    unsigned char fixed[12];

    put_be32(put_be64(fixed, offset), (uint32_t)len);
    return reply_chunk(s, q, NBD_REPLY_TYPE_OFFSET_HOLE, done, fixed, sizeof fixed, NULL, 0);
}

/* *ret_hole: as a hole. */
static int send_data(struct service *s, const struct request *q, uint64_t offset, const void *buf,
                     size_t len, bool done, bool *ret_hole)
{
    unsigned char fixed[8];

    *ret_hole = !(q->flags & NBD_CMD_FLAG_DF) && all_zero(buf, len);
    if (*ret_hole)
        return send_hole(s, q, offset, len, done);
    put_be64(fixed, offset);
    return reply_chunk(s, q, NBD_REPLY_TYPE_OFFSET_DATA, done, fixed, sizeof fixed, buf, len);
}

/* Where holes are is asked only beside one: a seek takes longer than reading a piece. */
static int read_structured(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    struct image *image = s->session.export->image;
    uint64_t at = q->offset, end = at + q->length, len;
    int sent = q->length ? 0 : reply_chunk(s, q, NBD_REPLY_TYPE_NONE, true, "", 0, NULL, 0);

    for (bool hole = false; at < end && sent == 0; at += len) {
        len = end - at;
        if (hole)
            image_extent(image, at, end, &len, &hole);
        if (hole) {
            sent = send_hole(s, q, at, len, at + len == end);
            continue;
        }
        len = MIN(len, (uint64_t)REQUEST_PIECE_BYTES);
        int r = image_read(image, job->buf, len, at);
        if (r < 0)
            return reply_error(s, q, request_error(r), strerror(-r));
        sent = send_data(s, q, at, job->buf, len, at + len == end, &hole);
    }
    return sent;
}

/* The pieces of a long simple reply, of which the first is in job->buf. */
static int send_pieces(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    unsigned char head[NBD_SIMPLE_REPLY_BYTES];
    size_t len = MIN(q->length, (size_t)REQUEST_PIECE_BYTES);
    struct iovec iov[2] = {{head, sizeof head}, {job->buf, len}};

    put_simple(head, q, 0);
    scope_lock(&s->send_lock);
    int r = stream_send(s->stream, iov, len ? 2 : 1);
    for (size_t done = len; r == 0 && done < q->length; done += len) {
        len = MIN(q->length - done, (size_t)REQUEST_PIECE_BYTES);
        r = image_read(s->session.export->image, job->buf, len, q->offset + done);
        if (r < 0)
            return -EIO; /* the header said that all is well: only the end can say otherwise */
        iov[0] = (struct iovec){job->buf, len};
        r = stream_send(s->stream, iov, 1);
    }
    return r;
}

static int read_simple(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    size_t len = MIN(q->length, (size_t)REQUEST_PIECE_BYTES);
    int r = image_read(s->session.export->image, job->buf, len, q->offset);

    return r < 0 ? reply_error(s, q, request_error(r), strerror(-r)) : send_pieces(s, job);
}

/* If the kernel has the bytes in memory, a read is done before somebody else could be woken. */
static int read_at_once(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    bool hole;

    if (!q->length || q->length > AT_ONCE_BYTES ||
        image_read_at_once(s->session.export->image, job->buf, q->length, q->offset) < 0)
        return 0;
    job->answered = true;
    return s->session.agreement.structured
               ? send_data(s, q, q->offset, job->buf, q->length, true, &hole)
               : send_pieces(s, job);
}

/* ----------------------------------------------------------------------------- BLOCK_STATUS */

static int block_status(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    struct image *image = s->session.export->image;
    unsigned most = q->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_MAX, n = 0;
    uint64_t at = q->offset, end = at + q->length, len;
    unsigned char *p = put_be32(job->buf, 1); /* the context's number */

    for (; at < end && n < most; at += len, n++) {
        bool hole;
        image_extent(image, at, end, &len, &hole);
        p = put_be32(p, (uint32_t)len);
        p = put_be32(p, hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0);
    }
    return reply_chunk(s, q, NBD_REPLY_TYPE_BLOCK_STATUS, true, "", 0, job->buf,
                       (size_t)(p - job->buf));
}

/* ----------------------------------------------------------------------------- the others */

static int cache(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    int r = 0;

    for (size_t done = 0, len; done < q->length && r == 0; done += len) {
        len = MIN(q->length - done, (size_t)REQUEST_PIECE_BYTES);
        r = image_read(s->session.export->image, job->buf, len, q->offset + done);
    }
    return reply_result(s, q, r);
}

static int write_zeroes(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    unsigned flags = 0;

    if (q->flags & NBD_CMD_FLAG_NO_HOLE)
        flags |= IMAGE_NO_HOLE;
    if (q->flags & NBD_CMD_FLAG_FAST_ZERO)
        flags |= IMAGE_FAST;
    if (q->flags & NBD_CMD_FLAG_FUA)
        flags |= IMAGE_FUA;
    return reply_result(s, q, image_zero(s->session.export->image, q->offset, q->length, flags));
}

static int finish_write(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    struct image *image = s->session.export->image;
    bool fua = q->flags & NBD_CMD_FLAG_FUA;
    int r = 0;

    if (!job->written)
        r = image_write(image, job->buf, q->length, q->offset, fua);
    else if (fua)
        r = image_flush(image);
    return reply_result(s, q, r);
}

int serve_do(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    struct image *image = s->session.export->image;

    if (job->answered)
        return 0;
    if (job->error)
        return reply_error(s, q, job->error, job->why);
    switch (q->type) {
    case NBD_CMD_READ:
        return s->session.agreement.structured ? read_structured(s, job) : read_simple(s, job);
    case NBD_CMD_WRITE:
        return finish_write(s, job);
    case NBD_CMD_FLUSH:
        return reply_result(s, q, image_flush(image));
    case NBD_CMD_TRIM:
        return reply_result(s, q,
                            image_trim(image, q->offset, q->length, q->flags & NBD_CMD_FLAG_FUA));
    case NBD_CMD_CACHE:
        return cache(s, job);
    case NBD_CMD_WRITE_ZEROES:
        return write_zeroes(s, job);
    default:
        INVARIANT(q->type == NBD_CMD_BLOCK_STATUS);
        return block_status(s, job);
    }
}

/* Nor is a small write worth waking somebody for, where only one is done at a time. */
static int write_at_once(struct service *s, struct job *job)
{
    const struct request *q = &job->request;

    if (job->error || q->length > AT_ONCE_BYTES || q->flags & NBD_CMD_FLAG_FUA ||
        !image_writes_at_once(s->session.export->image, q->length, q->offset))
        return 0;
    job->answered = true;
    return finish_write(s, job);
}

/* ----------------------------------------------------------------------------- receiving */

/* A payload that is longer than a piece is written while it arrives. */
static int receive_long(struct service *s, struct job *job)
{
    const struct request *q = &job->request;
    int written = 0;

    for (size_t done = 0, len; done < q->length; done += len) {
        len = MIN(q->length - done, (size_t)REQUEST_PIECE_BYTES);
        int r = stream_receive(s->stream, job->buf, len);
        if (r < 0)
            return r;
        if (written == 0)
            written = image_write(s->session.export->image, job->buf, len, q->offset + done, false);
    }
    if (written < 0) {
        job->error = request_error(written);
        job->why = strerror(-written);
    }
    job->written = true;
    return 0;
}

static int receive_payload(struct service *s, struct job *job)
{
    if (job->error)
        return stream_skip(s->stream, job->request.length);
    if (job->request.length > REQUEST_PIECE_BYTES)
        return receive_long(s, job);
    return stream_receive(s->stream, job->buf, job->request.length);
}

static bool needs_memory(uint16_t type)
{
    return type == NBD_CMD_READ || type == NBD_CMD_WRITE || type == NBD_CMD_CACHE ||
           type == NBD_CMD_BLOCK_STATUS;
}

int serve_receive(struct service *s, struct job *job)
{
    unsigned char bytes[NBD_REQUEST_BYTES];
    struct request *q = &job->request;
    int r = stream_receive(s->stream, bytes, sizeof bytes);

    if (r < 0)
        return r;
    if (!request_decode(bytes, q))
        return -EPROTO;
    if (q->type == NBD_CMD_DISC)
        return -ECONNABORTED;
    job->answered = job->written = false;
    job->error = request_check(q, &s->session.agreement, &job->why);
    if (*s->stopping) {
        job->error = NBD_ESHUTDOWN;
        job->why = "the server is being shut down";
    }
    if (!job->error && !job->buf && needs_memory(q->type) &&
        posix_memalign((void **)&job->buf, 4096, REQUEST_PIECE_BYTES) != 0) {
        job->buf = NULL;
        job->error = NBD_ENOMEM;
        job->why = "no memory";
    }
    if (q->type == NBD_CMD_WRITE) {
        r = receive_payload(s, job);
        return r < 0 ? r : write_at_once(s, job);
    }
    return q->type == NBD_CMD_READ && !job->error ? read_at_once(s, job) : 0;
}
