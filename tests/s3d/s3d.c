/*
 * NAME
 *     s3d - a small S3 server for tests
 *
 * SYNOPSIS
 *     s3d [OPTIONS]
 *
 * DESCRIPTION
 *     Serves buckets from memory on 127.0.0.1, prints "http://127.0.0.1:PORT" as its first line and
 *     runs until SIGTERM. It is strict where S3 is (signatures, payload hashes, clocks, signed
 *     headers) and does what S3 does for GET (Range), HEAD, PUT (If-None-Match: *), DELETE,
 *     POST ?delete and ListObjectsV2, path-style and virtual-hosted. It has no multipart uploads,
 *     no chunked uploads, no versions and no access control. ETags are opaque, not MD5.
 *
 * OPTIONS
 *     see the table below, which --help prints.
 *
 * CONTROL
 *     Requests to /_control need no signature.
 *
 *     POST /_control?FILTERS&FAULT   adds a rule; the first rule that fits a request is applied
 *     POST /_control?SETTINGS        changes what holds for all requests
 *     POST /_control/clear           no rules, up, latency and bandwidth as on the command line
 *     POST /_control/reset           the same, and an empty log and zero counters
 *     GET  /_control/log             lines "OP BUCKET/KEY STATUS BYTES-IN BYTES-OUT MS FAULT"; OP
 * is the method or LIST, STATUS 0 means not answered GET  /_control/stats           lines "NAME
 * NUMBER": requests by OP, errors, faults, bytes, connections
 *
 *     FILTERS: method=OP, match=PART of BUCKET/KEY (for a LIST, of BUCKET/PREFIX), conditional=1
 *     (only with If-None-Match), skip=N requests that fit, count=N requests to hit after that,
 *     p=PROBABILITY with seed=N.
 *     FAULTS: status=N and/or code=NAME (an error, such as code=SlowDown), refuse=1 (403), cut=N
 *     (the body, of a PUT the request's, ends after N bytes and the connection is closed), lost=1
 *     (done, but not answered), garbage=1 (random bytes of the right length), flip=1 (one bit
 *     changed), hang=1 (never answered), partial=1 (a batch delete refuses its last key, with
 *     code=NAME), delay=MS, alone or with one of the others.
 *     SETTINGS: down=1 (every connection is closed, and new ones after their first request), up=1,
 *     latency=MS, bandwidth=BYTES per second and connection (8M).
 */
#include "datadir.h"
#include "fault.h"
#include "journal.h"
#include "server.h"

#include "../../store/scope.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

static struct {
    uint16_t port;
    const char *data, *cert, *key;
    struct server_config server;
} opt = {.server = {.auth = {.access_key = "test", .secret = "testsecret", .region = "us-east-1"},
                    .api = {.domain = "localhost", .conditional_put = true}}};

static const struct {
    struct option option;
    const char *argument, *help;
} options[] = {
    {{"port", 1, NULL, 'p'}, "N", "listen on this port of 127.0.0.1; 0 (default): a free one"},
    {{"key", 1, NULL, 'k'}, "KEY", "the access key (test)"},
    {{"secret", 1, NULL, 's'}, "SECRET", "its secret (testsecret)"},
    {{"token", 1, NULL, 't'}, "TOKEN", "the session token that must come with them"},
    {{"region", 1, NULL, 'r'}, "REGION", "the region that must be signed for (us-east-1)"},
    {{"bucket", 1, NULL, 'b'}, "NAME", "make this bucket; may be given more than once"},
    {{"domain", 1, NULL, 'D'}, "NAME", "host names BUCKET.NAME are virtual-hosted (localhost)"},
    {{"data", 1, NULL, 'd'}, "DIR", "keep the objects in DIR across restarts"},
    {{"no-conditional-put", 0, NULL, 'n'}, "", "ignore If-None-Match, as some stores do"},
    {{"latency", 1, NULL, 'l'}, "MS", "wait so long before each answer"},
    {{"bandwidth", 1, NULL, 'w'}, "BYTES", "per second and connection, such as 8M"},
    {{"clock-ahead", 1, NULL, 'c'}, "S", "run the server's clock so many seconds ahead"},
    {{"tls-cert", 1, NULL, 'C'}, "FILE", "serve https with this certificate (PEM)"},
    {{"tls-key", 1, NULL, 'K'}, "FILE", "and its key"},
    {{"help", 0, NULL, 'h'}, "", "print this"},
};

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "s3d: %s: %s\n", what, why);
    exit(1);
}

_Noreturn static void usage(int code)
{
    FILE *to = code ? stderr : stdout;

    fputs("usage: s3d [OPTIONS]: an S3 server for tests\n", to);
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        fprintf(to, "  --%s %-*s %s\n", options[i].option.name,
                (int)(22 - strlen(options[i].option.name)), options[i].argument, options[i].help);
    fputs("Faults on command: POST /_control?…; see the top of s3d.c\n", to);
    exit(code);
}

static uint64_t size_or_die(const char *name, const char *text, uint64_t max)
{
    uint64_t n;

    if (!fault_parse_size(text, &n) || n > max)
        die(name, "no such number");
    return n;
}

static void set_option(int c, const char *value)
{
    struct auth_config *auth = &opt.server.auth;
    const char **text = c == 'k'   ? &auth->access_key
                        : c == 's' ? &auth->secret
                        : c == 't' ? &auth->token
                        : c == 'r' ? &auth->region
                        : c == 'D' ? &opt.server.api.domain
                        : c == 'd' ? &opt.data
                        : c == 'C' ? &opt.cert
                        : c == 'K' ? &opt.key
                                   : NULL;

    if (text)
        *text = value;
    else if (c == 'p')
        opt.port = (uint16_t)size_or_die("--port", value, 65535);
    else if (c == 'l')
        opt.server.latency_ms = size_or_die("--latency", value, 3600000);
    else if (c == 'w')
        opt.server.bandwidth = size_or_die("--bandwidth", value, UINT64_MAX);
    else if (c == 'c')
        auth->clock_ahead_s = strtoll(value, NULL, 10);
    else if (c == 'n')
        opt.server.api.conditional_put = false;
    else
        usage(c == 'h' ? 0 : 2);
}

static void parse_options(int argc, char **argv, const char **buckets, size_t *nbuckets)
{
    struct option table[ARRAY_SIZE(options) + 1] = {0};
    int c;

    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        table[i] = options[i].option;
    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (c != 'b')
            set_option(c, optarg);
        else if (*nbuckets == BUCKETS_MAX)
            die(optarg, "one bucket too many");
        else if (strlen(optarg) < 3 || strlen(optarg) > BUCKET_NAME_MAX)
            die(optarg, "a bucket's name has 3 to 63 characters");
        else
            buckets[(*nbuckets)++] = optarg;
    }
    if (optind < argc || !opt.cert != !opt.key)
        usage(2);
    opt.server.api.region = opt.server.auth.region;
}

static SSL_CTX *open_tls(void)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());

    if (!tls || SSL_CTX_use_certificate_chain_file(tls, opt.cert) != 1)
        die(opt.cert, "is no certificate");
    if (SSL_CTX_use_PrivateKey_file(tls, opt.key, SSL_FILETYPE_PEM) != 1)
        die(opt.key, "is not its key");
    return tls;
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        die("socket", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 256) < 0)
        die("cannot listen", strerror(errno));
    if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        die("socket", strerror(errno));
    printf("http%s://127.0.0.1:%u\n", opt.cert ? "s" : "", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

/* Accepts connections until a signal comes. */
static void run(int listener, int signals)
{
    eventfd_t n;

    for (;;) {
        bool room = server_has_room();
        struct pollfd p[] = {{.fd = signals, .events = POLLIN},
                             {.fd = room ? listener : server_ended, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            die("poll", strerror(errno));
        if (p[0].revents)
            return;
        (void)eventfd_read(server_ended, &n);
        int fd = room && p[1].revents ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0)
            server_start(fd);
    }
}

int main(int argc, char **argv)
{
    const char *buckets[BUCKETS_MAX];
    size_t nbuckets = 0;
    sigset_t ends;

    parse_options(argc, argv, buckets, &nbuckets);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    signal(SIGPIPE, SIG_IGN);
    objects_init(opt.data);
    for (size_t i = 0; i < nbuckets; i++) {
        int r = objects_make_bucket(buckets[i]);
        if (r < 0 && r != -EEXIST)
            die(buckets[i], strerror(-r));
    }
    if (opt.cert)
        opt.server.tls = open_tls();
    server_init(&opt.server);
    int listener = listen_on(opt.port), signals = signalfd(-1, &ends, SFD_CLOEXEC);
    run(listener, signals);
    close(listener);
    server_stop();
    SSL_CTX_free(opt.server.tls);
    objects_free();
    journal_clear();
    return 0;
}
