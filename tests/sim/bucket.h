/*
 * A bucket in memory, and the network between it and the machines, which delays and reorders
 * requests, loses them, loses answers after the request was carried out, delivers a request long
 * after whoever sent it has given up or died, cuts bodies short, and fails for a while altogether.
 */
#ifndef SIM_BUCKET_H
#define SIM_BUCKET_H

#include "objects.h"

/* How the network is, all by chance in a thousand. */
struct weather {
    int64_t latency_us; /* at most, most of the time */
    unsigned lost;      /* requests that never arrive */
    unsigned late;      /* requests that arrive after up to a day */
    unsigned answer_lost;
    unsigned busy; /* 503 */
    unsigned cut;  /* bodies that end early */
};
extern struct weather weather;

/* A store of the running machine's. */
struct store *bucket_store(int volume);
/* One that no network is in front of, to look only. */
struct store *bucket_look(int volume);
/* Which volume's that is. */
int bucket_volume(const char *url);

/* Called by a thread that is about to send a request. */
extern void (*bucket_on_request)(void);
/* Called when a request of that machine has changed something; it must not block. `data`: NULL, it
 * was deleted. */
extern void (*bucket_on_change)(int volume, int machine, const char *key, const uint8_t *data);

/* Nothing arrives and nobody answers, until then. */
void bucket_outage(int64_t until_us);
/* Requests of this machine that are under way arrive, or not. */
void bucket_forget_process(int machine);

/* Of the volume: loses one object of the log behind the newest checkpoint, of which a later one
 * says that it was acknowledged. Its number; 0: there is none. */
uint64_t bucket_lose_acknowledged(void);

/* The machine whose claim is the newest; the same if claims ahead count, too; and whether one has
 * sent a segment. */
int bucket_claimer(int volume);
int bucket_fencer(int volume);
bool bucket_uploaded(int machine);

uint64_t bucket_requests(void);

#endif
