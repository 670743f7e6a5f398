#include "msg.h"

#include "scope.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>

static enum msg_sink sink = MSG_STDERR;
static int debug;
static const char *name = "s3vol";
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all of these */
static char last_error[512];
static const char *log_path = _PATH_LOG;
static int log_fd = -1;
static unsigned long lost; /* messages, since one went through */

void msg_set_sink(enum msg_sink to)
{
    scope_lock(&lock);
    if (to == MSG_SYSLOG)
        tzset(); /* reads a file, which is not to be done later */
    sink = to;
}

static void log_close(void)
{
    if (log_fd >= 0)
        close(log_fd);
    log_fd = -1;
}

void msg_set_log(const char *path)
{
    scope_lock(&lock);
    log_close();
    log_path = path;
}

void msg_set_name(const char *to)
{
    scope_lock(&lock);
    name = to;
}

void msg_set_debug(int on)
{
    scope_lock(&lock);
    debug = on;
}

/* ------------------------------------------------------------------ the system's log */

static bool log_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    log_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (log_fd >= 0 && format(address.sun_path, sizeof address.sun_path, "%s", log_path) == 0 &&
        connect(log_fd, (struct sockaddr *)&address, sizeof address) == 0)
        return true;
    log_close();
    return false;
}

/* It is opened again if it was started anew. */
static bool log_send(const char *line, size_t len)
{
    for (int tries = 0; tries < 2; tries++) {
        if (log_fd < 0 && !log_open())
            return false;
        if (send(log_fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return true;
        if (errno == EAGAIN)
            return false; /* full */
        log_close();
    }
    return false;
}

/* As syslog(3) writes it (RFC 3164). */
static bool log_line(int priority, const char *label, const char *text)
{
    char line[640], when[32] = "";
    time_t now = time(NULL);
    struct tm tm;

    if (localtime_r(&now, &tm))
        strftime(when, sizeof when, "%b %e %T", &tm);
    int len = snprintf(line, sizeof line, "<%d>%s %s[%d]: %s%s", LOG_DAEMON | priority, when, name,
                       (int)getpid(), label, text);
    return log_send(line, MIN((size_t)len, sizeof line - 1));
}

/* Not syslog(3), which waits for room in the log's queue: the log may be waiting for its disk, that
 * for us, and whoever has something to say is us. */
static void to_log(int priority, const char *label, const char *text)
{
    char note[80];

    (void)snprintf(note, sizeof note, "%lu message%s before this did not get into the log", lost,
                   lost == 1 ? "" : "s");
    if (lost && log_line(LOG_WARNING, "", note))
        lost = 0;
    if (lost || !log_line(priority, label, text))
        lost++;
}

static void __attribute__((format(printf, 2, 0))) vmsg(int priority, const char *fmt, va_list ap)
{
    static const char *const label[] = {
        [LOG_ERR] = "", [LOG_WARNING] = "warning: ", [LOG_INFO] = "", [LOG_DEBUG] = "debug: "};
    char text[512];

    scope_lock(&lock);
    if (priority == LOG_DEBUG && !debug)
        return;
    (void)vsnprintf(text, sizeof text, fmt, ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' '; /* one line, whatever a server put into its answer */
    if (priority <= LOG_WARNING)
        memcpy(last_error, text, sizeof text);
    if (sink == MSG_STDERR)
        fprintf(stderr, "%s: %s%s\n", name, label[priority], text);
    else if (sink == MSG_SYSLOG)
        to_log(priority, label[priority], text);
}

#define VMSG(priority)                                                                             \
    do {                                                                                           \
        va_list ap_;                                                                               \
        va_start(ap_, fmt);                                                                        \
        vmsg(priority, fmt, ap_);                                                                  \
        va_end(ap_);                                                                               \
    } while (0)

int msg_error(int err, const char *fmt, ...)
{
    VMSG(LOG_ERR);
    return err;
}

void msg_warn(const char *fmt, ...)
{
    VMSG(LOG_WARNING);
}

void msg_info(const char *fmt, ...)
{
    VMSG(LOG_INFO);
}

void msg_debug(const char *fmt, ...)
{
    VMSG(LOG_DEBUG);
}

void msg_last_error(char *buf, unsigned size_bytes)
{
    scope_lock(&lock);
    (void)snprintf(buf, size_bytes, "%s", last_error);
}
