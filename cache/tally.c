#include "tally.h"

#include "../store/scope.h"

enum { ROOM_LEAST = 1024 };

static int by_seq(const void *a, const void *b)
{
    const struct tally_item *x = a, *y = b;

    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

void tally_settle(struct tally *t)
{
    size_t n = 0;

    if (t->n > 1)
        qsort(t->items, t->n, sizeof *t->items, by_seq);
    for (size_t i = 0; i < t->n; i++) {
        struct tally_item *to = &t->items[n ? n - 1 : 0], *from = &t->items[i];
        if (n > 0 && to->seq == from->seq) {
            to->blocks += from->blocks;
            to->bytes += from->bytes;
            to->stored += from->stored;
        } else {
            t->items[n++] = *from;
        }
    }
    t->n = n;
}

int tally_add(struct tally *t, struct tally_item item)
{
    if (t->n > 0 && t->items[t->n - 1].seq == item.seq) { /* mostly neighbours */
        t->items[t->n - 1].blocks += item.blocks;
        t->items[t->n - 1].bytes += item.bytes;
        t->items[t->n - 1].stored += item.stored;
        return 0;
    }
    if (t->n == t->room) {
        tally_settle(t);
        if (2 * t->n >= t->room) { /* settling did not make enough room to be worth it again */
            size_t room = MAX(2 * t->room, (size_t)ROOM_LEAST);
            struct tally_item *more = realloc(t->items, room * sizeof *more);
            if (!more)
                return -ENOMEM;
            t->items = more;
            t->room = room;
        }
    }
    t->items[t->n++] = item;
    return 0;
}
