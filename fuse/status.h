/* What `s3vol status` says, for programs and for people. Pure. */
#ifndef S3VOL_STATUS_H
#define S3VOL_STATUS_H

#include "../cache/offline.h"
#include "../cache/volume.h"

#include <sys/types.h>

struct status {
    const char *url;
    pid_t pid; /* of the daemon */
    struct volume_status volume;
    struct store_stats store;
    const char *last_error; /* "" if there was none */
};

enum { STATUS_TEXT_MAX = 8192 };

/* One JSON object and a newline; its keys are a contract, see DESIGN.md. 0, or -ENOSPC. */
int status_json(const struct status *status, char *buf, size_t size_bytes);
/* Some lines for people. Returns as above. */
int status_text(const struct status *status, char *buf, size_t size_bytes);

/* The same for a volume that is looked at in the store, mounted or not. */
int status_info_json(const char *url, const struct volume_info *info, char *buf, size_t size_bytes);
int status_info_text(const char *url, const struct volume_info *info, char *buf, size_t size_bytes);

#endif
