/* The commands: each returns the exit code. */
#ifndef S3VOL_COMMAND_H
#define S3VOL_COMMAND_H

#include "options.h"

#include <limits.h>

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* The cache of a command that copies a volume once, in order. */
#define COPY_CACHE_BYTES (UINT64_C(512) << 20)

/* How long a command that somebody waits for tries to reach the store. */
enum { PATIENCE_MS = 20000 };

struct command {
    const char *name;
    enum command_bit bit;
    const char *synopsis;
    const char *summary; /* one line of the list of commands */
    const char *text;    /* what --help says before the options */
    unsigned min_args, max_args;
    bool url; /* the first argument is one, without a snapshot */
    int (*run)(struct options *options);
};

/* NULL: there is no such command. */
const struct command *command_find(const char *name);

/* What the commands are, or what one of them does. */
void command_print_all(FILE *out);
void command_print(FILE *out, const struct command *command);

/* The text of an exit status: EXIT_OK, or EXIT_FAILED for a negative errno. */
int command_exit(int err);

/* 0, or -EINVAL with one line printed: no URL, or one of a snapshot, which nothing takes. */
int command_check_url(const char *url);

/* Opens the store of the volume `url`, after the same check. One line was printed on failure. */
int command_open_store(const struct options *options, const char *url, struct store **ret_store);

/* Where caches are, as an absolute path; made if it is not there. One line was printed on failure.
 */
int command_cache_dir(const struct options *options, char ret_dir[PATH_MAX]);

/* Attaches to the volume options->args[0], of which no mount on this machine is seen, with the
 * cache of this machine's mounts: what only that has goes to the bucket as well. One line was
 * printed on failure. */
int command_attach(struct options *options, struct store **ret_store, struct volume **ret_volume);

/* command_mount.c */
int command_mount(struct options *options);
/* command_import.c, command_export.c */
int command_import(struct options *options);
int command_export(struct options *options);
/* command_flatten.c */
int command_flatten(struct options *options);
/* command_resize.c */
int command_resize(struct options *options);
/* command_mounted.c: on a volume that is mounted */
int command_umount(struct options *options);
int command_flush(struct options *options);
int command_gc(struct options *options);
int command_defrag(struct options *options);
int command_status(struct options *options);
/* command_stored.c: on a volume in the store */
int command_create(struct options *options);
int command_list(struct options *options);
int command_delete(struct options *options);
int command_check(struct options *options);
/* command_snapshot.c */
int command_snapshot(struct options *options);
int command_clone(struct options *options);
int command_help(struct options *options);

#endif
