#include "readahead.h"

#include "../store/scope.h"

enum {
    SLACK = 128 * 1024, /* so far may a read be off: several requests of one reader race */
    FIRST_WINDOW = 512 * 1024,
};

static struct stream *find(struct readahead *ra, uint64_t offset)
{
    for (int i = 0; i < READAHEAD_STREAMS; i++) {
        struct stream *s = &ra->streams[i];
        if (s->used && offset + SLACK >= s->next && offset <= s->next + SLACK)
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

bool readahead_note(struct readahead *ra, uint64_t offset, uint64_t len, uint64_t *ret_from,
                    uint64_t *ret_to)
{
    uint64_t end = offset + len;
    struct stream *s = find(ra, offset);

    *ret_from = *ret_to = 0;
    if (!s) {
        s = oldest(ra);
        *s = (struct stream){.next = end, .ahead = end, .used = ++ra->turn};
        return false;
    }
    s->used = ++ra->turn;
    if (end <= s->next)
        return true; /* the same again: neither a jump nor progress */
    s->next = end;
    s->ahead = MAX(s->ahead, end);
    if (s->ahead - s->next > s->window / 2)
        return true;
    s->window = MIN(MAX(2 * s->window, (uint64_t)FIRST_WINDOW), ra->max_bytes);
    *ret_from = s->ahead;
    *ret_to = s->ahead = s->next + s->window;
    if (*ret_to < *ret_from)
        *ret_to = s->ahead = *ret_from;
    return true;
}
