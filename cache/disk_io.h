/* Reading and writing whole pieces of a file on the cache disk. */
#ifndef S3VOL_DISK_IO_H
#define S3VOL_DISK_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* All of it: what is beyond the file's end reads as zeros. 0 or a negative errno; never -EBADMSG,
 * which file systems say of their own damage. */
int io_all(int fd, bool write, void *buf, size_t len, off_t at);

#endif
