#include "listen.h"

#include "../../store/msg.h"
#include "../../store/scope.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum {
    BACKLOG = 128,
    FIRST_FD = 3, /* SD_LISTEN_FDS_START */
};
#define DEFAULT_PORT "10809" /* "Newstyle negotiation" */

static int add(struct listeners *listeners, int fd, const char *path)
{
    INVARIANT(listeners->n < LISTEN_MAX);
    listeners->path[listeners->n] = path;
    listeners->fd[listeners->n++] = fd;
    return 0;
}

static int no_room(const struct listeners *listeners, const char *what)
{
    return listeners->n < LISTEN_MAX
               ? 0
               : msg_error(-E2BIG, "%s: there can be %d sockets", what, LISTEN_MAX);
}

/* ----------------------------------------------------------------------------- Unix */

/* Whether a file is a socket that was left over: nobody answers. */
static bool is_stale(const struct sockaddr_un *addr)
{
    struct stat st;

    if (lstat(addr->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    scope_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof *addr) < 0 &&
           errno == ECONNREFUSED;
}

static int bind_unix(int fd, const struct sockaddr_un *addr)
{
    mode_t mask = umask(0177);
    int r = bind(fd, (const struct sockaddr *)addr, sizeof *addr);

    if (r < 0 && errno == EADDRINUSE && is_stale(addr) && unlink(addr->sun_path) == 0)
        r = bind(fd, (const struct sockaddr *)addr, sizeof *addr);
    int err = r < 0 ? -errno : 0;
    umask(mask);
    return err;
}

int listen_unix(struct listeners *listeners, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (no_room(listeners, path) < 0)
        return -E2BIG;
    if (!*path || format(addr.sun_path, sizeof addr.sun_path, "%s", path) < 0)
        return msg_error(-ENAMETOOLONG, "%s: no path for a socket: 1 to %zu bytes", path,
                         sizeof addr.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return msg_error(-errno, "%s: %s", path, strerror(errno));
    int r = bind_unix(fd, &addr);
    if (r == 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    if (r == 0)
        return add(listeners, fd, path);
    close(fd);
    return msg_error(r, "%s: cannot listen on it: %s", path,
                     r == -EADDRINUSE
                         ? "somebody else does, or it is no socket; choose another path"
                         : strerror(-r));
}

/* ----------------------------------------------------------------------------- TCP */

static bool is_loopback(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)addr)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)addr)->sin6_addr);
}

static int listen_address(struct listeners *listeners, const struct addrinfo *a)
{
    int on = 1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    return add(listeners, fd, NULL);
}

/* Splits `copy`, which is changed. */
static void split(char *copy, const char **ret_host, const char **ret_port)
{
    char *colon = strrchr(copy, ':');
    bool number = copy[strspn(copy, "0123456789")] == 0;

    *ret_host = NULL;
    *ret_port = DEFAULT_PORT;
    if (number) {
        *ret_port = copy;
        return;
    }
    if (*copy == '[') {
        char *end = strchr(copy, ']');
        *ret_host = copy + 1;
        if (end)
            *end = 0;
        colon = end && end[1] == ':' ? end + 1 : NULL;
    } else if (colon != copy) {
        *ret_host = copy;
        if (colon && strchr(copy, ':') != colon)
            colon = NULL; /* an IPv6 address without a port */
    }
    if (colon) {
        *colon = 0;
        *ret_port = colon + 1;
    }
}

int listen_tcp(struct listeners *listeners, const char *where)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
    scope_free char *copy = strdup(where);
    const char *host, *port;
    unsigned before = listeners->n;
    int r = -EADDRNOTAVAIL;

    if (!copy)
        return -ENOMEM;
    split(copy, &host, &port);
    /* Without AI_PASSIVE, no host means loopback. */
    int err = getaddrinfo(host && *host ? host : NULL, port, &hints, &list);
    if (err)
        return msg_error(-EINVAL, "--listen %s: %s; write ADDR:PORT", where, gai_strerror(err));
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        r = no_room(listeners, where);
        if (r == 0)
            r = listen_address(listeners, a);
        if (r == 0 && !is_loopback(a->ai_addr))
            msg_debug("%s: can be reached from other machines", where);
        if (r < 0 && r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)
            break;
        if (listeners->n > before)
            r = 0; /* one family is enough */
    }
    freeaddrinfo(list);
    return r < 0 ? msg_error(r, "--listen %s: %s", where, strerror(-r)) : 0;
}

/* ----------------------------------------------------------------------------- systemd */

int listen_activated(struct listeners *listeners)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    int n = pid && count && strtol(pid, NULL, 10) == getpid() ? atoi(count) : 0;

    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    for (int fd = FIRST_FD; fd < FIRST_FD + n; fd++) {
        int listening = 0;
        socklen_t len = sizeof listening;
        if (no_room(listeners, "socket activation") < 0)
            return -E2BIG;
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening)
            return msg_error(-EINVAL,
                             "file %d, handed over to listen on, is no listening socket; with "
                             "Accept=yes say --stdin and StandardInput=socket",
                             fd);
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        add(listeners, fd, NULL);
    }
    return n;
}

void listen_close(struct listeners *listeners)
{
    for (unsigned i = 0; i < listeners->n; i++) {
        if (listeners->path[i])
            (void)unlink(listeners->path[i]);
        close(listeners->fd[i]);
    }
    listeners->n = 0;
}
