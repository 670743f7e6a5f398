/* Sockets to accept clients from: made here, or handed over by systemd. */
#ifndef NBD_LISTEN_H
#define NBD_LISTEN_H

enum { LISTEN_MAX = 16 };

struct listeners {
    int fd[LISTEN_MAX];
    const char *path[LISTEN_MAX]; /* of a Unix socket that we made, and remove; or NULL */
    unsigned n;
};

/* Each says what is wrong; strings must live as long. */

/* Readable and writable for its owner only. One that nobody listens on any more is replaced. */
int listen_unix(struct listeners *listeners, const char *path);
/* "ADDR:PORT", "[ADDR]:PORT", ":PORT", "PORT", "ADDR"; loopback and 10809 for what is not said. */
int listen_tcp(struct listeners *listeners, const char *where);
/* sd_listen_fds(3). Returns how many there are; 0 without socket activation. */
int listen_activated(struct listeners *listeners);

void listen_close(struct listeners *listeners);

#endif
