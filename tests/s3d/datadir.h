/*
 * Objects kept as files across restarts of the server (kill -9 included, a power cut not):
 * DIR/BUCKET/KEY, the key percent-encoded, and DIR/.new-N while they are written. Functions return
 * 0 or a negative errno.
 */
#ifndef S3D_DATADIR_H
#define S3D_DATADIR_H

#include <stddef.h>
#include <time.h>

enum { DATADIR_PATH_MAX = 4096 };

int datadir_make_bucket(const char *dir, const char *bucket);
int datadir_remove_bucket(const char *dir, const char *bucket);

/* Writes a new file and tells its path; datadir_commit() gives it its name. */
int datadir_write(const char *dir, const char *data, size_t len, char *ret_path);
int datadir_commit(const char *dir, const char *bucket, const char *key, const char *path);
int datadir_remove(const char *dir, const char *bucket, const char *key);

/* Calls `fn` for each bucket, with key NULL, and each object in it; `fn` takes the malloc'ed data
 * over. Exits with a message on any error. */
typedef int datadir_fn(const char *bucket, const char *key, char *data, size_t len,
                       const char *etag, time_t mtime);
void datadir_load(const char *dir, datadir_fn *fn);

#endif
