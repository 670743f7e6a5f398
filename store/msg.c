#include "msg.h"

#include "scope.h"

#include <string.h>
#include <syslog.h>

static enum msg_sink sink = MSG_STDERR;
static int debug;
static const char *name = "s3vol";
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all of these */
static char last_error[512];

void msg_set_sink(enum msg_sink to)
{
    scope_lock(&lock);
    if (to == MSG_SYSLOG)
        openlog(name, LOG_PID, LOG_DAEMON);
    sink = to;
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
        syslog(priority, "%s%s", label[priority], text);
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
