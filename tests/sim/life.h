/*
 * The life of one attachment: a process on a machine opens the volume, reads all of it, which the
 * model judges, lets its clients work, and ends, well or not.
 */
#ifndef SIM_LIFE_H
#define SIM_LIFE_H

#include "../../cache/volume.h"
#include "model.h"
#include "objects.h"

/* How the last life with this cache directory ended; what is to be found there. */
enum ending { FRESH, DRAINED, KEPT_LOCAL, CRASHED };

struct host {
    int number;
    struct sim_volume *volume;
    char dir[32];
    enum ending ending;
    bool local;        /* the cache may have what the bucket has not */
    bool forked;       /* and was refused for it */
    bool index_lost;   /* index.db was: for that it may be refused, too */
    bool wal_lost;     /* its newest transactions were: what it gave up before may be there again */
    struct era *last;  /* of this host */
    struct life *life; /* NULL: unmounted */
    bool back;         /* it died amid something, and comes back */
    bool on_top;       /* … having written on top of what it had flushed */
    bool amid_work;    /* it died while SQLite moved nothing into index.db */
};

/* How one that stopped where it is will die. */
enum death { DEATH_ANY, DEATH_KILL, DEATH_CUT };

struct life {
    struct host *host;
    int machine;
    struct volume_config config;
    bool keep_local; /* when it ends by itself */
    bool last;       /* nobody else is left */
    unsigned operations;
    /* set by it */
    struct task *task;
    struct store *store;
    struct volume *volume;
    struct era *era;
    bool verified, closing, over;
    int opened, closed; /* what open and close said; 1: not yet */
    bool interrupted;   /* it is to give saving up */
    bool stopping;      /* and is being told so: what is used for that is not freed meanwhile */
    bool flush_failed;
    const char *doing;
    unsigned syncs_left; /* to go, until it stops amid one, to be killed; 0: it does not */
    bool dying;          /* it did */
    enum death death;
};

/* What is true of this run. */
struct run {
    bool verbose;
    bool calm; /* nothing fails */
    bool disk_faults;
    bool alone;   /* one host */
    bool rot;     /* slots go bad */
    bool lineage; /* snapshots, rollbacks, a clone, and the volume shrinks, too */
};
extern struct run run;

/* A volume, and the one that becomes its clone some day. */
struct sim_volume {
    bool repaired;      /* it went back in time */
    struct era *newest; /* by epoch; NULL: there is no such volume */
    unsigned lives;     /* that began so far */
};
extern struct sim_volume sim_volumes[VOLUMES];
int sim_number(const struct sim_volume *v);

/* Tells it to give saving up. */
void life_stop(struct life *l);

struct life *life_start(struct host *host, const struct volume_config *config, unsigned operations,
                        bool keep_local);
/* Mounted now, it has, and may upload, what a write cache left, and nobody has read that yet: not
 * the time to be taken over; nor, once it does, to be killed. */
bool life_may_die(const struct host *host);
bool life_unknown(const struct host *host);
/* It stops where it is, until it dies there. */
void life_end(struct life *l, enum death death);
/* To be called by a thread of it that syncs a file, or the names in a directory. */
void life_on_sync(bool names);
/* It is over, or was killed: the host is free again. */
void life_forget(struct life *life, bool crashed);

/* Somebody was told of an error: ends the simulation if there is no reason for one. */
void life_judge_error(struct life *l, const char *what, int r);

void run_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
