#include "tls.h"

#include "../../store/msg.h"
#include "../../store/scope.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>

struct tls {
    SSL_CTX *ctx;
};

/* What a stream has as its layer. */
struct layer {
    pthread_mutex_t lock; /* guards ssl */
    SSL *ssl;
    bool broken; /* after such an error nothing may be sent, not even the end */
};

/* ----------------------------------------------------------------------------- configuration */

static const char *reason(void)
{
    unsigned long err = ERR_peek_error();
    const char *text =
        ERR_SYSTEM_ERROR(err) ? strerror(ERR_GET_REASON(err)) : ERR_reason_error_string(err);

    ERR_clear_error();
    return text ? text : "unknown error";
}

static int load(SSL_CTX *ctx, const char *cert, const char *key, const char *client_ca)
{
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
        return msg_error(-EINVAL, "%s: no usable certificate in PEM format: %s", cert, reason());
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        return msg_error(-EINVAL, "%s: no usable key for %s: %s", key, cert, reason());
    if (!client_ca)
        return 0;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(client_ca);
    if (!names || SSL_CTX_load_verify_locations(ctx, client_ca, NULL) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return msg_error(-EINVAL, "%s: no usable certificates in PEM format: %s", client_ca,
                         reason());
    }
    SSL_CTX_set_client_CA_list(ctx, names); /* which takes them over */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

int tls_new(const char *cert, const char *key, const char *client_ca, struct tls **ret_tls)
{
    static const unsigned char id[] = "s3vol-nbd";
    struct tls *tls = calloc(1, sizeof *tls);
    int r = -ENOMEM;

    if (!tls)
        return r;
    tls->ctx = SSL_CTX_new(TLS_server_method());
    if (tls->ctx) {
        SSL_CTX_set_min_proto_version(tls->ctx, TLS1_2_VERSION);
        SSL_CTX_set_options(tls->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
        SSL_CTX_set_mode(tls->ctx,
                         SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        (void)SSL_CTX_set_session_id_context(tls->ctx, id, sizeof id - 1);
        r = load(tls->ctx, cert, key, client_ca);
    }
    if (r < 0) {
        tls_free(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->ctx);
    free(tls);
}

/* ----------------------------------------------------------------------------- bytes */

/* What the result `n` of an operation means: bytes, 0 for the end, -EAGAIN, or an error; in
 * *ret_other the events to wait for if they are not those of the direction. Called with the lock.
 */
static ssize_t outcome(struct layer *layer, int n, short *ret_other)
{
    *ret_other = 0;
    if (n > 0)
        return n;
    switch (SSL_get_error(layer->ssl, n)) {
    case SSL_ERROR_WANT_READ:
        *ret_other = POLLIN;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        *ret_other = POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        ERR_clear_error();
        layer->broken = true;
        return -ECONNRESET;
    }
}

static ssize_t tls_readv(struct stream *stream, const struct iovec *iov, int n)
{
    struct layer *layer = stream->layer;
    short other;

    (void)n;
    for (;;) {
        ssize_t got;
        {
            scope_lock(&layer->lock);
            got = outcome(layer, SSL_read(layer->ssl, iov->iov_base, (int)iov->iov_len), &other);
        }
        if (got != -EAGAIN || other == POLLIN)
            return got;
        int r = stream_wait(stream, stream->out, other);
        if (r < 0)
            return r;
    }
}

static ssize_t tls_writev(struct stream *stream, const struct iovec *iov, int n)
{
    enum { JOINED = 4096 }; /* a header and a small payload go in one record */
    struct layer *layer = stream->layer;
    char small[JOINED + 64];
    const void *from = iov->iov_base;
    size_t len = iov->iov_len;
    short other;

    if (n > 1 && len + iov[1].iov_len <= sizeof small) {
        memcpy(small, iov[0].iov_base, len);
        memcpy(small + len, iov[1].iov_base, iov[1].iov_len);
        from = small;
        len += iov[1].iov_len;
    }
    for (;;) {
        ssize_t put;
        {
            scope_lock(&layer->lock);
            put = outcome(layer, SSL_write(layer->ssl, from, (int)len), &other);
        }
        if (put != -EAGAIN || other == POLLOUT)
            return put == 0 ? -EPIPE : put;
        int r = stream_wait(stream, stream->in, other);
        if (r < 0)
            return r;
    }
}

static size_t tls_pending(struct stream *stream)
{
    struct layer *layer = stream->layer;

    scope_lock(&layer->lock);
    return (size_t)SSL_pending(layer->ssl);
}

static const struct stream_ops tls_ops = {tls_readv, tls_writev, tls_pending};

/* ----------------------------------------------------------------------------- begin and end */

static int shake_hands(struct layer *layer, struct stream *stream)
{
    for (;;) {
        short events;
        ssize_t r = outcome(layer, SSL_accept(layer->ssl), &events);
        if (r > 0)
            return 0;
        if (r != -EAGAIN)
            return -EPROTO;
        r = stream_wait(stream, events == POLLIN ? stream->in : stream->out, events);
        if (r < 0)
            return (int)r;
    }
}

int tls_start(struct tls *tls, struct stream *stream)
{
    struct layer *layer = calloc(1, sizeof *layer);

    if (!layer)
        return -ENOMEM;
    pthread_mutex_init(&layer->lock, NULL);
    layer->ssl = SSL_new(tls->ctx);
    stream->layer = layer;
    stream->ops = &tls_ops;
    if (!layer->ssl || SSL_set_rfd(layer->ssl, stream->in) != 1 ||
        SSL_set_wfd(layer->ssl, stream->out) != 1)
        return -ENOMEM;
    return shake_hands(layer, stream);
}

void tls_end(struct stream *stream)
{
    struct layer *layer = stream->layer;

    if (!layer)
        return;
    if (layer->ssl && !layer->broken && SSL_is_init_finished(layer->ssl))
        (void)SSL_shutdown(layer->ssl);
    ERR_clear_error();
    SSL_free(layer->ssl);
    pthread_mutex_destroy(&layer->lock);
    free(layer);
    stream->layer = NULL;
}
