#include "objects.h"

#include "datadir.h"

#include "../../store/scope.h"

#include <string.h>

struct bucket {
    char name[BUCKET_NAME_MAX + 1];
    struct object **objects; /* sorted by key */
    size_t nobjects, room;
};

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; /* guards all of these */
static struct bucket buckets[BUCKETS_MAX];
static unsigned nbuckets;
static const char *data_dir;

void object_unref(struct object *object)
{
    if (!object || --object->refs)
        return;
    free(object->data);
    free(object);
}

static struct bucket *find_bucket_locked(const char *name)
{
    for (unsigned i = 0; i < nbuckets; i++)
        if (strcmp(buckets[i].name, name) == 0)
            return &buckets[i];
    return NULL;
}

/* The index of the first key that is not below `key`; true if it is `key`. */
static bool find_locked(const struct bucket *b, const char *key, size_t *ret_i)
{
    size_t low = 0, high = b->nobjects;

    /* Keys that count upwards end up behind all others. */
    if (high && strcmp(b->objects[high - 1]->key, key) < 0)
        low = high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(b->objects[mid]->key, key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_i = low;
    return low < b->nobjects && strcmp(b->objects[low]->key, key) == 0;
}

static int insert_locked(struct bucket *b, size_t i, struct object *object)
{
    if (b->nobjects == b->room) {
        size_t room = MAX(b->room * 2, (size_t)64);
        void *more = realloc(b->objects, room * sizeof *b->objects);
        if (!more)
            return -ENOMEM;
        b->objects = more;
        b->room = room;
    }
    memmove(b->objects + i + 1, b->objects + i, (b->nobjects - i) * sizeof *b->objects);
    b->objects[i] = object;
    b->nobjects++;
    return 0;
}

static void remove_locked(struct bucket *b, size_t i)
{
    object_unref(b->objects[i]);
    b->nobjects--;
    memmove(b->objects + i, b->objects + i + 1, (b->nobjects - i) * sizeof *b->objects);
}

static struct object *new_object(const char *key, char *data, size_t len, const char *etag,
                                 time_t mtime)
{
    struct object *object = malloc(sizeof *object + strlen(key) + 1);

    if (!object)
        return NULL;
    *object = (struct object){.refs = 1, .len = len, .mtime = mtime, .data = data};
    (void)snprintf(object->etag, sizeof object->etag, "%.32s", etag);
    strcpy(object->key, key);
    return object;
}

static int make_bucket_locked(const char *name)
{
    if (find_bucket_locked(name))
        return -EEXIST;
    if (nbuckets == BUCKETS_MAX)
        return -ENOSPC;
    int r = data_dir ? datadir_make_bucket(data_dir, name) : 0;
    if (r < 0)
        return r;
    buckets[nbuckets] = (struct bucket){0};
    strcpy(buckets[nbuckets++].name, name);
    return 0;
}

int objects_make_bucket(const char *name)
{
    pthread_rwlock_wrlock(&lock);
    int r = make_bucket_locked(name);
    pthread_rwlock_unlock(&lock);
    return r;
}

bool objects_has_bucket(const char *name)
{
    pthread_rwlock_rdlock(&lock);
    bool has = find_bucket_locked(name);
    pthread_rwlock_unlock(&lock);
    return has;
}

int objects_remove_bucket(const char *name)
{
    pthread_rwlock_wrlock(&lock);
    struct bucket *b = find_bucket_locked(name);
    int r = !b ? -ENOENT : b->nobjects ? -ENOTEMPTY : 0;
    if (r == 0 && data_dir)
        r = datadir_remove_bucket(data_dir, name);
    if (r == 0) {
        free(b->objects);
        *b = buckets[--nbuckets];
    }
    pthread_rwlock_unlock(&lock);
    return r;
}

static int put_locked(const char *bucket, struct object *object, bool if_absent, const char *tmp)
{
    struct bucket *b = find_bucket_locked(bucket);
    size_t i;

    if (!b)
        return -ENOENT;
    bool found = find_locked(b, object->key, &i);
    if (found && if_absent)
        return -EEXIST;
    int r = tmp ? datadir_commit(data_dir, bucket, object->key, tmp) : 0;
    if (r < 0)
        return r;
    if (!found)
        return insert_locked(b, i, object);
    object_unref(b->objects[i]);
    b->objects[i] = object;
    return 0;
}

int objects_put(const char *bucket, const char *key, char *data, size_t len, const char *etag,
                bool if_absent)
{
    struct object *object = new_object(key, data, len, etag, time(NULL));
    char tmp[DATADIR_PATH_MAX];

    if (!object) {
        free(data);
        return -EIO;
    }
    int r = data_dir ? datadir_write(data_dir, data, len, tmp) : 0;
    if (r == 0) {
        pthread_rwlock_wrlock(&lock);
        r = put_locked(bucket, object, if_absent, data_dir ? tmp : NULL);
        pthread_rwlock_unlock(&lock);
        if (r < 0 && data_dir)
            (void)unlink(tmp);
    }
    if (r < 0)
        object_unref(object);
    return r;
}

struct object *objects_get(const char *bucket, const char *key)
{
    struct object *object = NULL;
    size_t i;

    pthread_rwlock_rdlock(&lock);
    struct bucket *b = find_bucket_locked(bucket);
    if (b && find_locked(b, key, &i)) {
        object = b->objects[i];
        object->refs++;
    }
    pthread_rwlock_unlock(&lock);
    return object;
}

int objects_delete(const char *bucket, const char *key)
{
    size_t i;
    int r = 0;

    pthread_rwlock_wrlock(&lock);
    struct bucket *b = find_bucket_locked(bucket);
    if (b && find_locked(b, key, &i)) {
        if (data_dir)
            r = datadir_remove(data_dir, bucket, key);
        if (r == 0)
            remove_locked(b, i);
    }
    pthread_rwlock_unlock(&lock);
    return r;
}

void objects_walk(const char *bucket, const char *from, objects_fn *fn, void *ctx)
{
    size_t i;

    pthread_rwlock_rdlock(&lock);
    struct bucket *b = find_bucket_locked(bucket);
    if (b)
        for (find_locked(b, from, &i); i < b->nobjects && !fn(ctx, b->objects[i]); i++)
            ;
    pthread_rwlock_unlock(&lock);
}

/* One object, or with `key` NULL one bucket, that an earlier run left. */
static int load_one(const char *bucket, const char *key, char *data, size_t len, const char *etag,
                    time_t mtime)
{
    size_t i;

    if (!key)
        return make_bucket_locked(bucket);
    struct bucket *b = find_bucket_locked(bucket);
    struct object *object = new_object(key, data, len, etag, mtime);
    if (!object || find_locked(b, key, &i))
        return -ENOMEM;
    return insert_locked(b, i, object);
}

void objects_init(const char *dir)
{
    pthread_rwlock_wrlock(&lock);
    if (dir)
        datadir_load(dir, load_one);
    data_dir = dir;
    pthread_rwlock_unlock(&lock);
}

void objects_free(void)
{
    for (unsigned i = 0; i < nbuckets; i++) {
        while (buckets[i].nobjects)
            remove_locked(&buckets[i], buckets[i].nobjects - 1);
        free(buckets[i].objects);
    }
    nbuckets = 0;
}
