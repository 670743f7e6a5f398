/* Directories that volumes are mounted on. */
#ifndef S3VOL_MOUNTPOINT_H
#define S3VOL_MOUNTPOINT_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* The absolute path of `dir`, which may be a mount whose daemon is dead. One line was printed on
 * failure. */
int mountpoint_resolve(const char *dir, char ret_path[PATH_MAX]);

/* Whether a volume is mounted exactly at `path`, an absolute one; if it is, and ret_url is not
 * NULL, its URL. */
bool mountpoint_is_volume(const char *path, char *ret_url, size_t size_bytes);

/* Whether that is so, and for reading only. */
bool mountpoint_is_read_only(const char *path);

/* Whether, and where, the volume `url` is mounted for writing on this machine, as far as this
 * process sees. */
bool mountpoint_of(const char *url, char ret_path[PATH_MAX]);

/* Refuses, with a line, what cannot be mounted on. */
int mountpoint_check(const char *path);

/* Unmounts; root by itself, others with fusermount3. `lazy`: takes it out of sight at once, whoever
 * uses it. -EBUSY: somebody does; silent. */
int mountpoint_detach(const char *path, bool lazy);

/* The loop devices whose backing file is the image at `path`: "/dev/loop0 /dev/loop1", or "". */
void mountpoint_loops(const char *path, char *buf, size_t size_bytes);

#endif
