#include "negotiate.h"

#include "../../store/msg.h"
#include "../../store/scope.h"

#include <string.h>

enum { DONE = 1 }; /* of an option: transmission begins */

struct negotiation {
    const struct negotiate_config *config;
    struct stream *stream;
    uint32_t client_flags;
    bool structured, encrypted;
    bool allocation;       /* SET_META_CONTEXT has chosen base:allocation … */
    char *allocation_name; /* … of this export */
    uint32_t option, len;  /* the one at hand */
    unsigned char *data;   /* its data, `len` bytes and a NUL */
    struct session *session;
};

/* What of an option's data was not looked at yet. */
struct reader {
    const unsigned char *p;
    size_t left;
};

/* ----------------------------------------------------------------------------- replies */

static int reply(struct negotiation *n, uint32_t type, const void *data, size_t len)
{
    unsigned char head[NBD_OPTION_REPLY_BYTES];
    struct iovec iov[2] = {{head, sizeof head}, {(void *)data, len}};

    put_be32(put_be32(put_be32(put_be64(head, NBD_REPLY_MAGIC), n->option), type), (uint32_t)len);
    return stream_send(n->stream, iov, len ? 2 : 1);
}

static int refuse(struct negotiation *n, uint32_t type, const char *why)
{
    msg_debug("option %u is refused: %s", n->option, why);
    return reply(n, type, why, strlen(why));
}

/* A reply whose data is a number and one or two strings. */
static int reply_text(struct negotiation *n, uint32_t type, const unsigned char *number,
                      size_t number_len, const char *text, const char *more)
{
    size_t text_len = strlen(text), more_len = strlen(more), len = number_len + text_len + more_len;
    scope_free unsigned char *data = malloc(len);

    if (!data)
        return -ENOMEM;
    memcpy(data, number, number_len);
    memcpy(data + number_len, text, text_len);
    memcpy(data + number_len + text_len, more, more_len);
    return reply(n, type, data, len);
}

/* ----------------------------------------------------------------------------- reading data */

static bool take_number(struct reader *r, unsigned bytes, uint32_t *ret)
{
    if (r->left < bytes)
        return false;
    *ret = bytes == 2 ? get_be16(r->p) : get_be32(r->p);
    r->p += bytes;
    r->left -= bytes;
    return true;
}

/* A string of `len` bytes as a copy for free(). NULL if it is none, or there is no memory. */
static char *take_string(struct reader *r, uint32_t len)
{
    if (len > r->left || len > NBD_STRING_MAX || memchr(r->p, 0, len))
        return NULL;
    char *s = strndup((const char *)r->p, len);
    r->p += len;
    r->left -= len;
    return s;
}

/* With its length before it. */
static char *take_counted_string(struct reader *r)
{
    uint32_t len;

    return take_number(r, 4, &len) ? take_string(r, len) : NULL;
}

/* ----------------------------------------------------------------------------- exports */

/* The option's export; on failure it has been refused, and 1 is returned, or an error. */
static int acquire(struct negotiation *n, const char *name, struct export **ret_export)
{
    int r = exports_acquire(n->config->exports, name, ret_export);

    if (r == 0)
        return 0;
    r = refuse(n, NBD_REP_ERR_UNKNOWN,
               r == -ENOENT ? "there is no such export" : "the export cannot be opened");
    return r < 0 ? r : 1;
}

static void agree(const struct negotiation *n, const struct export *export, const char *name,
                  struct agreement *ret)
{
    *ret = (struct agreement){
        .size = image_size(export->image),
        .read_only = image_read_only(export->image),
        .structured = n->structured,
        .allocation = n->allocation && strcmp(n->allocation_name, name) == 0,
    };
}

/* NBD_OPT_EXPORT_NAME: the reply is no option reply, and there is none for a failure. */
static int do_export_name(struct negotiation *n)
{
    static const unsigned char zeroes[NBD_EXPORT_NAME_ZEROES];
    struct reader data = {n->data, n->len};
    scope_free char *name = take_string(&data, n->len);
    unsigned char head[10];
    struct iovec iov[2] = {{head, sizeof head}, {(void *)zeroes, sizeof zeroes}};
    struct session *session = n->session;

    if (!name || exports_acquire(n->config->exports, name, &session->export) < 0)
        return -EPROTO;
    agree(n, session->export, name, &session->agreement);
    put_be16(put_be64(head, session->agreement.size),
             request_transmission_flags(&session->agreement));
    int r = stream_send(n->stream, iov, n->client_flags & NBD_FLAG_NO_ZEROES ? 1 : 2);
    if (r < 0)
        exports_release(n->config->exports, session->export);
    return r < 0 ? r : DONE;
}

static int send_info(struct negotiation *n, uint32_t what, const struct export *export,
                     const struct agreement *agreement)
{
    unsigned char info[14];
    unsigned char *p = put_be16(info, what);

    switch (what) {
    case NBD_INFO_EXPORT:
        p = put_be16(put_be64(p, agreement->size), request_transmission_flags(agreement));
        return reply(n, NBD_REP_INFO, info, (size_t)(p - info));
    case NBD_INFO_NAME:
        return reply_text(n, NBD_REP_INFO, info, 2, export->name, "");
    case NBD_INFO_DESCRIPTION:
        return reply_text(n, NBD_REP_INFO, info, 2, export->description, "");
    case NBD_INFO_BLOCK_SIZE:
        p = put_be32(p, NBD_BLOCK_MIN);
        p = put_be32(p, MAX((uint32_t)NBD_BLOCK_PREFERRED, image_preferred_bytes(export->image)));
        p = put_be32(p, NBD_PAYLOAD_MAX);
        return reply(n, NBD_REP_INFO, info, (size_t)(p - info));
    default:
        return 0; /* not known: ignored */
    }
}

/* `wanted` has a bit for each information that the client asked for. */
static int send_infos(struct negotiation *n, unsigned wanted, const struct export *export,
                      const struct agreement *agreement)
{
    wanted |= 1U << NBD_INFO_EXPORT;
    for (uint32_t what = 0; what <= NBD_INFO_BLOCK_SIZE; what++) {
        int r = wanted & 1U << what ? send_info(n, what, export, agreement) : 0;
        if (r < 0)
            return r;
    }
    return reply(n, NBD_REP_ACK, NULL, 0);
}

/* NBD_OPT_INFO, NBD_OPT_GO */
static int do_info(struct negotiation *n)
{
    struct reader data = {n->data, n->len};
    scope_free char *name = take_counted_string(&data);
    uint32_t count = 0, what;
    unsigned wanted = 0;
    struct export *export;
    struct agreement agreement;

    if (!name || !take_number(&data, 2, &count) || data.left != 2 * (size_t)count)
        return refuse(n, NBD_REP_ERR_INVALID, "malformed");
    while (take_number(&data, 2, &what))
        if (what <= NBD_INFO_BLOCK_SIZE)
            wanted |= 1U << what;
    int r = acquire(n, name, &export);
    if (r)
        return MIN(r, 0);
    agree(n, export, name, &agreement);
    r = send_infos(n, wanted, export, &agreement);
    if (r < 0 || n->option == NBD_OPT_INFO) {
        exports_release(n->config->exports, export);
        return r;
    }
    n->session->export = export;
    n->session->agreement = agreement;
    return DONE;
}

/* NBD_OPT_LIST: what is on the command line; volumes come into being when they are asked for. */
static int do_list(struct negotiation *n)
{
    const struct exports *exports = n->config->exports;

    for (unsigned i = 0; i < exports_count(exports); i++) {
        const char *name, *description;
        unsigned char len[4];
        exports_describe(exports, i, &name, &description);
        put_be32(len, (uint32_t)strlen(name));
        int r = reply_text(n, NBD_REP_SERVER, len, sizeof len, name, description);
        if (r < 0)
            return r;
    }
    return reply(n, NBD_REP_ACK, NULL, 0);
}

/* ----------------------------------------------------------------------------- metadata */

/* "The base: metadata namespace": whether a query means base:allocation. -EINVAL: it is no query.
 */
static int query_matches(const char *query, bool listing)
{
    if (!strchr(query, ':'))
        return -EINVAL;
    return strcmp(query, NBD_BASE_ALLOCATION) == 0 || (listing && strcmp(query, "base:") == 0);
}

static int reads_queries(struct reader *data, bool listing)
{
    uint32_t count;
    int matches = 0;

    if (!take_number(data, 4, &count))
        return -EINVAL;
    if (count == 0 && listing)
        matches = 1;
    for (; count; count--) {
        scope_free char *query = take_counted_string(data);
        int r = query ? query_matches(query, listing) : -EINVAL;
        if (r < 0)
            return r;
        matches |= r;
    }
    return data->left ? -EINVAL : matches;
}

/* NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT */
static int do_meta_context(struct negotiation *n)
{
    bool listing = n->option == NBD_OPT_LIST_META_CONTEXT;
    struct reader data = {n->data, n->len};
    unsigned char id[4] = {0, 0, 0, !listing};
    struct export *export;

    if (!listing)
        n->allocation = false;
    if (!n->structured)
        return refuse(n, NBD_REP_ERR_INVALID, "structured replies must be negotiated first");
    scope_free char *name = take_counted_string(&data);
    int matches = name ? reads_queries(&data, listing) : -EINVAL;
    if (matches < 0)
        return refuse(n, NBD_REP_ERR_INVALID, "malformed");
    int r = acquire(n, name, &export);
    if (r)
        return MIN(r, 0);
    exports_release(n->config->exports, export);
    if (matches)
        r = reply_text(n, NBD_REP_META_CONTEXT, id, sizeof id, NBD_BASE_ALLOCATION, "");
    if (matches && !listing) {
        free(n->allocation_name);
        n->allocation_name = take(name);
        n->allocation = true;
    }
    return r < 0 ? r : reply(n, NBD_REP_ACK, NULL, 0);
}

/* ----------------------------------------------------------------------------- the others */

static int do_starttls(struct negotiation *n)
{
    if (!n->config->tls)
        return refuse(n, NBD_REP_ERR_POLICY, "this server has no certificate");
    if (n->encrypted)
        return refuse(n, NBD_REP_ERR_INVALID, "TLS is there already");
    int r = reply(n, NBD_REP_ACK, NULL, 0);
    /* What came without TLS must not count as if it had come through it. */
    if (r == 0 && stream_has_more(n->stream))
        return -EPROTO;
    if (r == 0)
        r = n->config->start_tls(n->config->tls, n->stream);
    n->encrypted = true;
    n->structured = n->allocation = false;
    return r;
}

static int do_option(struct negotiation *n)
{
    bool must_encrypt = n->config->tls && !n->encrypted;
    bool empty = n->option == NBD_OPT_LIST || n->option == NBD_OPT_STARTTLS ||
                 n->option == NBD_OPT_STRUCTURED_REPLY;

    if (n->option == NBD_OPT_ABORT) {
        (void)reply(n, NBD_REP_ACK, NULL, 0);
        return -ECONNABORTED;
    }
    if (n->option == NBD_OPT_EXPORT_NAME)
        return must_encrypt || *n->config->stopping ? -EPROTO : do_export_name(n);
    if (must_encrypt && n->option != NBD_OPT_STARTTLS)
        return refuse(n, NBD_REP_ERR_TLS_REQD, "this server speaks TLS only");
    if (*n->config->stopping)
        return refuse(n, NBD_REP_ERR_SHUTDOWN, "the server is being shut down");
    if (empty && n->len)
        return refuse(n, NBD_REP_ERR_INVALID, "this option has no data");
    switch (n->option) {
    case NBD_OPT_LIST:
        return do_list(n);
    case NBD_OPT_STARTTLS:
        return do_starttls(n);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return do_info(n);
    case NBD_OPT_STRUCTURED_REPLY:
        n->structured = true;
        return reply(n, NBD_REP_ACK, NULL, 0);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return do_meta_context(n);
    default:
        return refuse(n, NBD_REP_ERR_UNSUP, "unknown option");
    }
}

/* Receives an option and does it. 0: to the next one. */
static int next_option(struct negotiation *n)
{
    unsigned char head[NBD_OPTION_BYTES];
    int r = stream_receive(n->stream, head, sizeof head);

    if (r < 0)
        return r;
    n->option = get_be32(head + 8);
    n->len = get_be32(head + 12);
    if (get_be64(head) != NBD_OPTION_MAGIC)
        return -EPROTO;
    if (!(n->client_flags & NBD_FLAG_FIXED_NEWSTYLE) && n->option != NBD_OPT_EXPORT_NAME)
        return -EPROTO;
    if (n->len > NEGOTIATE_DATA_MAX) {
        r = n->option == NBD_OPT_EXPORT_NAME ? -EPROTO : stream_skip(n->stream, n->len);
        return r < 0 ? r : refuse(n, NBD_REP_ERR_TOO_BIG, "too long");
    }
    n->data = malloc(n->len + 1);
    if (!n->data)
        return -ENOMEM;
    n->data[n->len] = 0;
    r = stream_receive(n->stream, n->data, n->len);
    if (r == 0)
        r = do_option(n);
    free(n->data);
    n->data = NULL;
    return r;
}

static int greet(struct negotiation *n)
{
    unsigned char greeting[NBD_GREETING_BYTES], flags[NBD_CLIENT_FLAGS_BYTES];
    struct iovec iov = {greeting, sizeof greeting};

    put_be16(put_be64(put_be64(greeting, NBD_INIT_MAGIC), NBD_OPTION_MAGIC),
             NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    int r = stream_send(n->stream, &iov, 1);
    if (r == 0)
        r = stream_receive(n->stream, flags, sizeof flags);
    if (r < 0)
        return r;
    n->client_flags = get_be32(flags);
    return n->client_flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES) ? -EPROTO
                                                                                       : 0;
}

int negotiate(const struct negotiate_config *config, struct stream *stream,
              struct session *ret_session)
{
    struct session session = {0};
    struct negotiation n = {.config = config, .stream = stream, .session = &session};
    int r = greet(&n);

    for (unsigned i = 0; r == 0; i++)
        r = i < NEGOTIATE_OPTIONS_MAX ? next_option(&n) : -EPROTO;
    free(n.allocation_name);
    if (r == DONE)
        *ret_session = session;
    return r == DONE ? 0 : r;
}
