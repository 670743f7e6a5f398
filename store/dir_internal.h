/*
 * What dir.c and dir_list.c share: objects as files below one directory, the volume's root.
 *
 * A put writes a temporary file ".tmp-PID-N" beside the object, syncs it, and gives it its name
 * with link(2) or rename(2), so that a reader sees all or nothing; then it syncs the directory. A
 * temporary file whose writer died is removed by a list that meets it when it is a day old (no
 * earlier: on a network share its writer may be on another machine).
 */
#ifndef S3VOL_DIR_INTERNAL_H
#define S3VOL_DIR_INTERNAL_H

#include "store.h"
#include "url.h"

#include <pthread.h>
#include <stdatomic.h>

#define DIR_TMP_PREFIX ".tmp-"

enum { DIR_PATH_MAX = URL_PART_MAX + STORE_KEY_MAX + 64, DIR_DURABLE_MAX = 8 };

struct dir {
    char root[URL_PART_MAX];
    atomic_uint_fast64_t counter; /* of temporary files */
    /* An object was seen below the root. From then on a missing or empty root is taken for a share
     * that is not mounted: an outage, not an empty store. */
    atomic_bool populated;
    /* The sync of a directory failed: the next one might say that all is well although it is not.
     * So nothing is acknowledged any more. */
    atomic_bool sync_failed;
    pthread_mutex_t lock; /* guards `durable` */
    /* Directories, relative to the root and "" for itself, whose own entries in their parents were
     * synced by us. Once this is full, others are synced each time. */
    char durable[DIR_DURABLE_MAX][STORE_KEY_MAX];
    unsigned ndurable;
};

/* The path of an object, or of a directory below the root, "" for the root itself. `path` has
 * DIR_PATH_MAX bytes. */
void dir_path(const struct dir *dir, const char *key, char *path);

/* Fills *err for the failed operation `what` on `path`, and returns what a try returns. */
int dir_failed(const char *what, const char *path, int errnum, struct store_error *err);

/* After an ENOENT below the root: 0 when it is to be believed, or -EAGAIN and *err. */
int dir_check_root(struct dir *dir, struct store_error *err);

int dir_list(void *self, const char *prefix, const char *start_after, bool dirs,
             struct store_page *page, struct store_error *err);

#endif
