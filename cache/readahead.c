#include "readahead.h"

#include "../store/scope.h"

enum {
    SLACK = 128 * 1024, /* so far, or two reads, may one be off: a reader's requests race */
    FIRST_WINDOW = 512 * 1024,
};

static struct stream *find(struct readahead *ra, uint64_t offset, uint64_t len)
{
    uint64_t slack = MAX(2 * len, (uint64_t)SLACK);

    for (int i = 0; i < READAHEAD_STREAMS; i++) {
        struct stream *s = &ra->streams[i];
        if (s->used && offset + slack >= s->next && offset <= s->next + slack)
            return s;
    }
    return NULL;
}

static struct stream *oldest(struct readahead *ra)
{
    struct stream *s = &ra->streams[0];

    for (int i = 1; i < READAHEAD_STREAMS; i++)
        if (ra->streams[i].used < s->used)
            s = &ra->streams[i];
    return s;
}

bool readahead_note(struct readahead *ra, uint64_t offset, uint64_t len, bool fetch,
                    uint64_t *ret_from, uint64_t *ret_to)
{
    uint64_t end = offset + len;
    struct stream *s = find(ra, offset, len);

    *ret_from = *ret_to = 0;
    if (!s) {
        s = oldest(ra);
        *s = (struct stream){.next = end, .read = len, .used = ++ra->turn};
        return false;
    }
    s->used = ++ra->turn;
    if (end > s->next) {
        s->read += end - s->next;
        s->next = end;
        s->ahead = MAX(s->ahead, end);
    }
    uint64_t window = MIN(MAX(s->read, (uint64_t)FIRST_WINDOW), ra->max_bytes);
    if (!s->ahead || s->ahead - s->next > window / 2)
        return true;
    *ret_from = s->ahead;
    *ret_to = MAX(s->ahead, s->next + window);
    if (fetch)
        s->ahead = *ret_to;
    return true;
}
