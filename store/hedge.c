#include "hedge.h"

#include "scope.h"

#include <math.h>

enum { CREDIT_MAX = 4 };

static double unusual_ms(const struct hedge *h)
{
    return MAX(h->usual_ms + 4 * h->spread_ms, (double)HEDGE_LEAST_MS);
}

int64_t hedge_begin(struct hedge *h)
{
    h->credit = MIN(h->credit + 1.0 / HEDGE_ONE_IN, (double)CREDIT_MAX);
    return h->known < HEDGE_ONE_IN ? INT64_MAX : (int64_t)unusual_ms(h);
}

bool hedge_spend(struct hedge *h)
{
    if (h->credit < 1)
        return false;
    h->credit -= 1;
    return true;
}

void hedge_learn(struct hedge *h, int64_t ms)
{
    /* one of a second tells little of the others */
    double seen = h->known ? MIN((double)ms, 2 * unusual_ms(h)) : (double)ms;
    double off = seen - h->usual_ms;

    if (h->known == 0) {
        h->usual_ms = seen;
        h->spread_ms = seen / 2;
    } else {
        h->spread_ms += (fabs(off) - h->spread_ms) / 4;
        h->usual_ms += off / 8;
    }
    h->known = MIN(h->known + 1, (unsigned)HEDGE_ONE_IN);
}
