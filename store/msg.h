/*
 * Messages to the user: one line each, prefixed "s3vol: " or another program's name, to stderr
 * while somebody looks at it and to syslog once the daemon is in the background: never waiting for
 * it, so what it has no room for is lost, and counted in what it takes next. Whoever discovers
 * an error says it, once; the rest pass the number on. Never put a secret into a message. Safe from
 * any thread.
 */
#ifndef S3VOL_MSG_H
#define S3VOL_MSG_H

enum msg_sink {
    MSG_STDERR, /* the default */
    MSG_SYSLOG, /* facility daemon, identity: the name */
    MSG_NONE,   /* for fuzzers */
};

void msg_set_sink(enum msg_sink sink);
/* Where the system's log listens for datagrams, instead of /dev/log; a constant. For tests. */
void msg_set_log(const char *path);
/* Instead of "s3vol"; a constant. */
void msg_set_name(const char *name);
/* Debug messages are dropped unless this is set. */
void msg_set_debug(int on);

/* `err` is 0 or a negative errno that is passed through: `return msg_error(-EIO, "…")`. The text
 * names the object, says what happened and what to do; no trailing newline. */
int msg_error(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void msg_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void msg_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void msg_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The newest error or warning, for `s3vol status`; "" if there was none. `size_bytes` > 0; cut to
 * fit. */
void msg_last_error(char *buf, unsigned size_bytes);

#endif
