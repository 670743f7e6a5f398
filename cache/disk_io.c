#include "disk_io.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int io_all(int fd, bool write, void *to, size_t len, off_t at)
{
    char *buf = to;

    while (len > 0) {
        ssize_t n = write ? pwrite(fd, buf, len, at) : pread(fd, buf, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EBADMSG ? -EIO : -errno; /* the file system's damage is not ours */
        if (n == 0 && write)
            return -EIO;
        if (n == 0) { /* beyond the file's end: a hole */
            memset(buf, 0, len);
            return 0;
        }
        buf += n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}
