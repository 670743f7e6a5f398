/*
 * Being called by mount(8): as /sbin/mount.fuse.s3vol or mount.s3vol, "SOURCE DIR [-sfnv] [-N NS]
 * [-t TYPE] [-o OPTIONS]", or by mount.fuse(8), "s3vol SOURCE DIR -o OPTIONS". Pure.
 */
#ifndef S3VOL_MOUNT_HELPER_H
#define S3VOL_MOUNT_HELPER_H

#include <stdbool.h>

enum { MOUNT_HELPER_ARGS_MAX = 32 };

struct mount_helper {
    int argc; /* the words for the command mount */
    char *argv[MOUNT_HELPER_ARGS_MAX];
    bool fake; /* -f: all but the mounting */
    int code;  /* not 0: exit with this, one line was printed */
};

/* False: this is no such call. The words are borrowed from `argv`. */
bool mount_helper_parse(int argc, char *const *argv, struct mount_helper *ret_helper);

#endif
