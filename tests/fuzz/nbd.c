/*
 * The NBD server: input is one byte of choices, and what a client sends, from its flags to its last
 * request. Whatever that is, what the server sends are whole messages of the protocol, each request
 * is answered once, and of a read-only export nothing changes.
 */
#include "fuzz.h"

#include "../../contrib/nbd/serve.h"

#include <sys/mman.h>

enum { SIZE = 192 << 10, TLS = 1, READ_ONLY = 2, BY_BYTES = 4, STOPPING = 8 };

/* The client's end. */
struct client {
    struct input in;
    size_t at_once;    /* the most that comes in one piece */
    bool transmission; /* no option replies any more */
    uint64_t replies;
};

static ssize_t client_readv(struct stream *stream, const struct iovec *iov, int n)
{
    struct client *c = stream->layer;
    size_t len = MIN(MIN(iov->iov_len, c->in.left), c->at_once);

    INVARIANT(n >= 1 && iov->iov_len > 0);
    memcpy(iov->iov_base, c->in.at, len);
    c->in.at += len;
    c->in.left -= len;
    return (ssize_t)len;
}

static void check_message(struct client *c, const unsigned char *head, size_t len)
{
    if (get_be32(head) == NBD_CHUNK_MAGIC) {
        INVARIANT(c->transmission && len >= NBD_CHUNK_BYTES);
        INVARIANT(get_be32(head + 16) == len - NBD_CHUNK_BYTES);
        if (get_be16(head + 4) & NBD_REPLY_FLAG_DONE)
            c->replies++;
        if (get_be16(head + 6) == NBD_REPLY_TYPE_OFFSET_HOLE)
            INVARIANT(get_be64(head + 20) + get_be32(head + 28) <= SIZE && get_be32(head + 28));
    } else if (get_be32(head) == NBD_SIMPLE_REPLY_MAGIC) {
        INVARIANT(c->transmission && len >= NBD_SIMPLE_REPLY_BYTES);
        INVARIANT(get_be32(head + 4) == 0 || len == NBD_SIMPLE_REPLY_BYTES);
        c->replies++;
    } else if (get_be64(head) == NBD_REPLY_MAGIC) {
        INVARIANT(!c->transmission && len >= NBD_OPTION_REPLY_BYTES);
        INVARIANT(get_be32(head + 16) == len - NBD_OPTION_REPLY_BYTES);
    } else {
        /* The greeting, or the answer to EXPORT_NAME. */
        INVARIANT(!c->transmission);
        INVARIANT(len == NBD_GREETING_BYTES || get_be64(head) == SIZE);
    }
}

static ssize_t client_writev(struct stream *stream, const struct iovec *iov, int n)
{
    size_t len = 0;

    for (int i = 0; i < n; i++)
        len += iov[i].iov_len;
    INVARIANT(iov->iov_len >= 10);
    check_message(stream->layer, iov->iov_base, len);
    return (ssize_t)len;
}

static size_t client_pending(struct stream *stream)
{
    const struct client *c = stream->layer;

    return c->transmission ? c->in.left : 0; /* else nobody came through STARTTLS */
}

static const struct stream_ops client_ops = {client_readv, client_writev, client_pending};

static int start_tls(struct tls *tls, struct stream *stream)
{
    (void)tls;
    (void)stream;
    return 0; /* as if: the bytes go on as they are */
}

/* The image: data, a hole, data. */
static const unsigned char *image(char path[32])
{
    static unsigned char *map;
    static int fd;

    if (!map) {
        fd = memfd_create("image", MFD_CLOEXEC);
        INVARIANT(fd >= 0 && ftruncate(fd, SIZE) == 0);
        map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        INVARIANT(map != MAP_FAILED);
    }
    memset(map, 'a', SIZE / 3);
    memset(map + SIZE / 3 * 2, 'b', 5000);
    INVARIANT(format(path, 32, "/proc/self/fd/%d", fd) == 0);
    return map;
}

static void transmit_all(struct service *service, struct client *c)
{
    struct job job = {0};
    uint64_t requests = 0;

    while (serve_receive(service, &job) == 0) {
        INVARIANT(serve_do(service, &job) == 0);
        INVARIANT(c->replies == ++requests);
    }
    INVARIANT(c->replies == requests);
    job_free(&job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct client client = {.in = {data, size}};
    unsigned choices = (unsigned)take_number(&client.in, 1);
    atomic_bool stopping = choices & STOPPING;
    static struct stream stream; /* large */
    struct exports *exports;
    struct session session;
    struct service service;
    char path[32];
    const unsigned char *bytes = image(path);
    uint32_t before = crc32c(0, bytes, SIZE);

    msg_set_sink(MSG_NONE);
    client.at_once = choices & BY_BYTES ? 1 : SIZE_MAX;
    INVARIANT(exports_new(choices & READ_ONLY, NULL, &exports) == 0);
    INVARIANT(exports_add(exports, path) == 0);
    stream.ops = &client_ops;
    stream.in = stream.out = -1;
    stream.layer = &client;
    stream.patience_ms = -1;
    stream.begin = stream.end = 0;
    const struct negotiate_config config = {exports, choices & TLS ? (void *)path : NULL, start_tls,
                                            &stopping};
    if (negotiate(&config, &stream, &session) == 0) {
        INVARIANT(session.agreement.size == SIZE);
        client.transmission = true;
        service_init(&service, &stream, &session, &stopping);
        transmit_all(&service, &client);
        service_destroy(&service);
        exports_release(exports, session.export);
    }
    exports_free(exports);
    if (choices & READ_ONLY)
        INVARIANT(crc32c(0, bytes, SIZE) == before);
    return 0;
}
