/*
 * The command line. One table (options.c) holds every option: its name, the commands that have it,
 * what values it takes and its line of help. Parsing, `--help`, and what may follow `-o` and stand
 * in fstab all come from it.
 */
#ifndef S3VOL_OPTIONS_H
#define S3VOL_OPTIONS_H

#include "../cache/volume.h"

#include <stdio.h>

/* Which commands an option belongs to. */
enum command_bit {
    COMMAND_CREATE = 1 << 0,
    COMMAND_MOUNT = 1 << 1,
    COMMAND_UMOUNT = 1 << 2,
    COMMAND_STATUS = 1 << 3,
    COMMAND_FLUSH = 1 << 4,
    COMMAND_LIST = 1 << 5,
    COMMAND_DELETE = 1 << 6,
    COMMAND_CHECK = 1 << 7,
    COMMAND_HELP = 1 << 8,
    COMMAND_GC = 1 << 9,
    COMMAND_DEFRAG = 1 << 10,
    COMMAND_RESIZE = 1 << 11,
    COMMAND_SNAPSHOT = 1 << 12,
    COMMAND_CLONE = 1 << 13,
    COMMAND_FLATTEN = 1 << 14,
    COMMAND_IMPORT = 1 << 15,
    COMMAND_EXPORT = 1 << 16,
};

enum { OPTIONS_ARGS_MAX = 2 };

struct options {
    struct store_config store;
    struct volume_config volume; /* mount */
    struct volume_create create; /* create, import; size_bytes 0 unless it was given */
    bool foreground, debug, allow_other;
    bool direct_io;          /* mount */
    const char *for_writing; /* mount: the name of an option that was given, and goes with no
                                read-only mount; NULL: none was */
    bool json;
    bool keep_local;
    bool repair; /* check */
    bool force;
    uint64_t offset, length;   /* defrag */
    bool shrink, discard_data; /* resize */
    bool local;                /* clone */
    bool help;
    const char *args[OPTIONS_ARGS_MAX]; /* what is not an option, in order */
    unsigned nargs;
    char **copies; /* of what followed -o: the strings above may point into them */
    unsigned ncopies;
};

/* The values that hold when nothing is said. */
void options_init(struct options *options);

/* Reads the `argc` words behind the name of the command `bit`; more than `max_args` words that are
 * not options are too many. Strings in *options point into `argv`. 0, or -EINVAL with one line
 * printed. Pure but for that line. */
int options_parse(int argc, char *const *argv, enum command_bit bit, unsigned max_args,
                  struct options *options);

void options_free(struct options *options);

/* The list of what `bit` accepts, for `--help`. */
void options_print(FILE *out, enum command_bit bit);

#endif
