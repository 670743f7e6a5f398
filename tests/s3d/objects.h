/*
 * Buckets and their objects, in memory, in order of bytes; with a data directory every change is
 * written there too (DIR/BUCKET/KEY, the key percent-encoded), and read again at the next start.
 * Safe from any thread.
 */
#ifndef S3D_OBJECTS_H
#define S3D_OBJECTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

enum { OBJECT_KEY_MAX = 1024, BUCKET_NAME_MAX = 63, BUCKETS_MAX = 64 };

/* Never changed once it can be seen. */
struct object {
    atomic_uint refs;
    size_t len;
    time_t mtime;
    char etag[33]; /* opaque: not an MD5 */
    char *data;
    char key[];
};
void object_unref(struct object *object); /* NULL is harmless */

/* `data_dir` NULL: nothing is kept. Exits with a message when the directory cannot be used. */
void objects_init(const char *data_dir);
void objects_free(void);

/* 0, -EEXIST, or another negative errno. */
int objects_make_bucket(const char *bucket);
bool objects_has_bucket(const char *bucket);
/* 0, -ENOENT, -ENOTEMPTY. */
int objects_remove_bucket(const char *bucket);

/* Takes the malloc'ed `data` over. 0, -ENOENT (no bucket), -EEXIST (`if_absent`), or -EIO. */
int objects_put(const char *bucket, const char *key, char *data, size_t len, const char *etag,
                bool if_absent);
/* A reference, or NULL. */
struct object *objects_get(const char *bucket, const char *key);
/* 0 also when it was not there; -EIO. */
int objects_delete(const char *bucket, const char *key);

/* Calls `fn`, under a lock, for the keys from `from` on, in order, until it returns true. */
typedef bool objects_fn(void *ctx, const struct object *object);
void objects_walk(const char *bucket, const char *from, objects_fn *fn, void *ctx);

#endif
