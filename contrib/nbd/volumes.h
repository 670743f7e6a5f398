/*
 * Volumes on demand: the first client of a name has `s3vol mount` mount it below one directory, the
 * last one's leaving unmounts it some time later. Any thread may use these.
 */
#ifndef NBD_VOLUMES_H
#define NBD_VOLUMES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    VOLUMES_MAX = 256,
    VOLUMES_NAME_MAX = 128,
};

struct volumes_config {
    const char *prefix;      /* a URL; volume NAME is PREFIX/NAME */
    const char *mount_dir;   /* volume NAME is mounted on DIR/NAME, a directory made for it */
    const char *create_size; /* what does not exist is created so large; NULL: it is not */
    const char
        *mount_options; /* for `s3vol mount -o`, those of the store's for create, too; or NULL */
    int64_t grace_ms;
};

struct volumes;

/* Strings of `config` must live as long. Says what is wrong with it. */
int volumes_new(const struct volumes_config *config, struct volumes **ret_volumes);
/* Unmounts what is mounted, and waits for it. Nobody may use any. */
void volumes_free(struct volumes *volumes);

/* Letters, digits, '.', '_', '-', not beginning with '.' or '-', at most VOLUMES_NAME_MAX. Pure. */
bool volumes_check_name(const char *name);

/* Mounts it if it is not. *ret_path: of its image, for free(). -ENOENT when it cannot be mounted,
 * -EMFILE when too many are; the reason has been said. The name has been checked. */
int volumes_acquire(struct volumes *volumes, const char *name, char **ret_path);
/* With `unusable` it is unmounted as soon as nobody uses it, without grace: its image could not be
 * opened, perhaps as its daemon is dead. Who acquires it next has it mounted anew. */
void volumes_release(struct volumes *volumes, const char *name, bool unusable);

#endif
