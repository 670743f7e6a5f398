#include "scratch.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

int scratch_new(struct store *store, const struct superblock *sb, struct scratch **ret)
{
    const char *tmp = getenv("TMPDIR");
    struct scratch *s = calloc(1, sizeof *s);
    char path[sizeof s->dir + 16];
    int r;

    if (!s)
        return -ENOMEM;
    r = format(s->dir, sizeof s->dir, "%s/s3vol-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (r == 0 && !mkdtemp(s->dir))
        r = msg_error(-errno, "%s: %s; set TMPDIR to a directory with room", s->dir,
                      strerror(errno));
    if (r < 0) {
        free(s);
        return r;
    }
    r = format(path, sizeof path, "%s/index.db", s->dir);
    if (r == 0)
        r = log_new(store, sb, &clock_system, &s->log);
    if (r == 0)
        r = index_open(path, sb->uuid, &s->index);
    if (r == 0)
        r = index_make_temporary(s->index);
    if (r < 0) {
        scratch_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void scratch_free(struct scratch *s)
{
    static const char *const names[] = {"index.db", "index.db-wal", "index.db-shm"};
    char path[sizeof s->dir + 16];

    if (!s)
        return;
    index_close(s->index);
    log_free(s->log);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (format(path, sizeof path, "%s/%s", s->dir, names[i]) == 0)
            (void)unlink(path);
    (void)rmdir(s->dir);
    free(s);
}
