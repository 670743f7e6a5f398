/*
 * How a running mount is spoken to: by ioctl on its image file. Who may read the image may ask how
 * it is (status, CONTROL_NOTHING), who has opened it for writing may do the rest; -EPERM otherwise.
 * There is no socket and no port. The numbers and structs are used by both sides and stay as they
 * are: an old daemon may meet a new command.
 */
#ifndef S3VOL_CONTROL_H
#define S3VOL_CONTROL_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Answers are text with a NUL. */
struct control_text {
    char text[8192];
};

enum control_kind {
    CONTROL_NOTHING = 0, /* tells the numbers only, to see who is there */
    CONTROL_FLUSH = 1,   /* volume_flush() */
    CONTROL_DRAIN = 2,   /* volume_drain() */
    CONTROL_COLLECT = 3, /* volume_collect() */
    CONTROL_DEFRAG = 4,  /* volume_defrag() */
    /* to `len` bytes; when it is done it is in the bucket */
    CONTROL_GROW = 5,
    CONTROL_SHRINK = 6,  /* refused with -ENOTEMPTY if that would cut off data */
    CONTROL_CUT = 7,     /* and data with it */
    CONTROL_FLATTEN = 8, /* volume_flatten() */
    CONTROL_KEEP = 9,    /* volume_can_keep(); behind no other */
    CONTROL_LAST = CONTROL_KEEP,
};

/* Work that takes long. The first call, with ticket 0, starts it; each call waits for its end for
 * `wait_ms` (at most 1000) and returns, so that the caller can tell how far it is and can be
 * interrupted. */
struct control_task {
    uint32_t kind;                         /* in */
    uint32_t wait_ms;                      /* in */
    uint64_t ticket;                       /* in, out */
    uint32_t done;                         /* out */
    int32_t result;                        /* out, when done: 0 or a negative errno */
    uint64_t pid;                          /* out: the daemon */
    uint64_t dirty_bytes, uploading_bytes; /* out */
    uint32_t lost;          /* out: fenced, damaged or failed, nothing can be saved any more */
    uint32_t unreachable;   /* out: the store does not answer, or refuses us */
    uint64_t garbage_bytes; /* out: stored and not needed; 0 if that is not known */
    uint64_t offset, len;   /* in: the range to defragment, len 0: to the end; the new size */
    /* out, when done: struct volume_defrag. Of flatten, until it is done: what is left to copy */
    uint64_t range_bytes, gets_before, gets_after;
};
static_assert(sizeof(struct control_task) == 104, "layout");

#define CONTROL_STATUS_JSON _IOR('3', 1, struct control_text)
#define CONTROL_STATUS_TEXT _IOR('3', 2, struct control_text)
#define CONTROL_TASK        _IOWR('3', 3, struct control_task)
/* 1: when unmounted, leave what is dirty in the cache; 0: upload it, as usual. */
#define CONTROL_KEEP_LOCAL _IOW('3', 4, uint32_t)

/* ------------------------------------------------------------------ the command's side */

/* Opens the image of the volume that is mounted at `path` (the directory, or the image in it), for
 * more than asking how it is if `write`.
 * -ENOTCONN: its daemon is dead; -ENODEV: no volume is mounted there. One line was printed but for
 * these two. */
int control_open(const char *path, bool write, int *ret_fd);

/* `request` is CONTROL_STATUS_JSON or CONTROL_STATUS_TEXT. */
int control_status(int fd, unsigned long request, struct control_text *ret_text);

/* Starts work of `kind`, waits for it, shows on a terminal what is left to do, and warns if the
 * store is away. Returns its result; `ret_task` (may be NULL) gets the last answer. `path` is for
 * messages. */
int control_run(int fd, const char *path, enum control_kind kind, struct control_task *ret_task);
/* The same; `task` has kind and range set, and gets the last answer. */
int control_run_task(int fd, const char *path, struct control_task *task);

/* The line on the terminal that tells how far it is, written over again and again; *progress begins
 * as zeros, and control_shown() takes it away. */
struct control_progress {
    bool shown;
    int64_t at_ms;
    uint64_t left_bytes;
    double bytes_per_s; /* smoothed */
    unsigned stuck;     /* answers in a row that said: nothing moves, the store is away */
};
void control_show_left(struct control_progress *progress, uint64_t left_bytes, const char *what);
void control_shown(const struct control_progress *progress);

int control_keep_local(int fd, bool keep);

#endif
