#include "../../store/msg.h"
#include "../../store/scope.h"
#include "notify.h"
#include "options.h"
#include "server.h"
#include "tls.h"
#include "volumes.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* What lives as long as the server. */
struct life {
    struct options options;
    struct volumes *volumes;
    struct exports *exports;
    struct tls *tls;
    struct listeners listeners;
    struct server *server;
    int signals;
    bool had_client, wrote_pid;
};

/* ----------------------------------------------------------------------------- beginning */

/* Before there is any thread: all of them have the signals blocked. */
static int take_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int open_exports(struct life *life)
{
    const struct options *o = &life->options;
    const struct volumes_config config = {
        .prefix = o->volumes,
        .mount_dir = o->mount_dir,
        .create_size = o->create_size,
        .mount_options = o->mount_options,
        .grace_ms = o->grace_ms,
    };
    int r = o->volumes ? volumes_new(&config, &life->volumes) : 0;

    if (r == 0)
        r = exports_new(o->read_only, life->volumes, &life->exports);
    for (unsigned i = 0; r == 0 && i < o->nexports; i++)
        r = exports_add(life->exports, o->exports[i]);
    return r;
}

static int listen_by_default(struct listeners *listeners)
{
    static char path[4096];
    const char *dir = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");

    if (!dir || format(path, sizeof path, "%s/s3vol-nbd.sock", dir) < 0)
        return msg_error(-EINVAL, "where to listen? Say --unix PATH or --listen ADDR:PORT");
    return listen_unix(listeners, path);
}

static int open_sockets(struct life *life)
{
    const struct options *o = &life->options;
    int r = listen_activated(&life->listeners);

    if (r > 0 && (o->nunix || o->ntcp || o->use_stdin))
        return msg_error(-EINVAL, "the sockets to listen on are handed over; say neither --unix "
                                  "nor --listen nor --stdin");
    if (r != 0 || o->use_stdin)
        return MIN(r, 0);
    for (unsigned i = 0; r == 0 && i < o->nunix; i++)
        r = listen_unix(&life->listeners, o->unix_path[i]);
    for (unsigned i = 0; r == 0 && i < o->ntcp; i++)
        r = listen_tcp(&life->listeners, o->tcp[i]);
    return r == 0 && !life->listeners.n ? listen_by_default(&life->listeners) : r;
}

/* Whatever is said later must not get between the bytes of the client. */
static int serve_stdin(struct life *life)
{
    int in = fcntl(0, F_DUPFD_CLOEXEC, 3), out = fcntl(1, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (in < 0 || out < 0 || null < 0)
        return msg_error(-errno, "standard input and output: %s", strerror(errno));
    dup2(null, 0);
    dup2(null, 1);
    close(null);
    life->had_client = true;
    return server_serve(life->server, in, out);
}

static int begin(struct life *life)
{
    const struct options *o = &life->options;
    int r = open_exports(life);

    if (r == 0 && o->tls_cert)
        r = tls_new(o->tls_cert, o->tls_key ? o->tls_key : o->tls_cert, o->tls_ca, &life->tls);
    if (r == 0)
        r = open_sockets(life);
    const struct server_config config = {life->exports, life->tls, o->max_connections};
    if (r == 0)
        r = server_new(&config, &life->server);
    if (r == 0 && o->pid_file)
        r = notify_pid_file(o->pid_file);
    life->wrote_pid = r == 0 && o->pid_file;
    if (r == 0 && o->use_stdin)
        r = serve_stdin(life);
    return r;
}

/* ----------------------------------------------------------------------------- middle */

static void accept_one(struct life *life, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            msg_warn("accepting a client: %s", strerror(errno));
            (void)poll(NULL, 0, 100); /* no file is free, perhaps; the client waits meanwhile */
        }
        return;
    }
    life->had_client = true;
    int r = server_serve(life->server, fd, fd);
    if (r < 0)
        msg_warn("a client cannot be served: %s", strerror(-r));
}

/* Until a signal, or until the only client has left. */
static void serve_clients(struct life *life)
{
    bool one = life->options.single || life->options.use_stdin;
    unsigned most = one ? 1 : life->options.max_connections;
    struct pollfd p[LISTEN_MAX + 2] = {
        {.fd = life->signals, .events = POLLIN},
        {.fd = server_left_fd(life->server), .events = POLLIN},
    };
    for (unsigned i = 0; i < life->listeners.n; i++)
        p[2 + i] = (struct pollfd){.fd = life->listeners.fd[i], .events = POLLIN};

    for (;;) {
        unsigned now = server_connections(life->server);
        if (one && life->had_client && !now)
            return;
        bool room = now < most && !(one && life->had_client);
        if (poll(p, room ? 2 + life->listeners.n : 2, -1) < 0)
            continue;
        if (p[0].revents)
            return;
        if (p[1].revents)
            server_noticed(life->server);
        for (unsigned i = 0; room && i < life->listeners.n; i++)
            if (p[2 + i].revents && server_connections(life->server) < most)
                accept_one(life, life->listeners.fd[i]);
    }
}

/* ----------------------------------------------------------------------------- end */

/* The second signal ends it at once. */
static void *wait_for_second_signal(void *arg)
{
    const struct life *life = arg;
    struct signalfd_siginfo info;
    struct pollfd p = {.fd = life->signals, .events = POLLIN};

    while (poll(&p, 1, -1) <= 0 || read(life->signals, &info, sizeof info) != sizeof info)
        ;
    msg_error(0, "ended at once; not everything may have been finished");
    _exit(EXIT_FAILED);
}

static void finish(struct life *life)
{
    struct signalfd_siginfo first;
    pthread_t thread;

    notify_state("STOPPING=1");
    listen_close(&life->listeners);
    (void)read(life->signals, &first, sizeof first);
    if (pthread_create(&thread, NULL, wait_for_second_signal, life) == 0)
        pthread_detach(thread);
    server_free(life->server);
    exports_free(life->exports);
    volumes_free(life->volumes);
    tls_free(life->tls);
    if (life->wrote_pid)
        (void)unlink(life->options.pid_file);
}

int main(int argc, char **argv)
{
    static struct life life;

    msg_set_name("s3vol-nbd");
    if (options_parse(argc, argv, &life.options) < 0)
        return EXIT_USAGE;
    if (life.options.help) {
        options_print();
        return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
    }
    if (life.options.version) {
        puts("s3vol-nbd " S3VOL_VERSION);
        return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
    }
    msg_set_debug(life.options.debug);
    life.signals = take_signals();
    int r = life.signals < 0 ? -errno : begin(&life);
    if (r == 0) {
        notify_state("READY=1");
        serve_clients(&life);
    }
    finish(&life);
    return r == 0 ? EXIT_OK : EXIT_FAILED;
}
