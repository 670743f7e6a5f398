/*
 * When to ask a second time: most answers begin within what is usual, and a few take many times as
 * long, for reasons of one server among many. A second, equal request on another connection is
 * answered sooner then (Dean and Barroso, "The Tail at Scale", 2013). What is usual is learnt as
 * TCP learns when to send again (RFC 6298). One request in twenty may be asked again, so that a
 * store that is slow as a whole gets no load on top. Pure: the caller's lock guards it.
 */
#ifndef S3VOL_HEDGE_H
#define S3VOL_HEDGE_H

#include <stdbool.h>
#include <stdint.h>

enum { HEDGE_LEAST_MS = 100, HEDGE_ONE_IN = 20 };

struct hedge {
    double usual_ms, spread_ms; /* until an answer began */
    unsigned known;             /* answers seen, up to HEDGE_ONE_IN */
    double credit;              /* second requests that may be sent */
};

/* A request begins. After so many ms without an answer it may be asked again; INT64_MAX: never. */
int64_t hedge_begin(struct hedge *h);
/* It is to be asked again now: may it? */
bool hedge_spend(struct hedge *h);
/* An answer began after so many ms. */
void hedge_learn(struct hedge *h, int64_t ms);

#endif
