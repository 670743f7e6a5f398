/* How often what happened, so that a check that never has anything to judge is seen. */
#ifndef SIM_COUNTS_H
#define SIM_COUNTS_H

enum count {
    COUNT_RUNS,
    COUNT_SNAPSHOTS,
    COUNT_ONLINE,
    COUNT_ROLLBACKS,
    COUNT_CLONES,
    COUNT_DELETED,
    COUNT_DIED,
    COUNT_DIED_EFFECT,
    COUNT_STOPPED,
    COUNT_REFUSED,
    COUNT_LATE,
    COUNT_BAD_PINS,
    COUNT_LOOKS,
    COUNT_AGAIN,
    COUNT_BLURRED,
    COUNT_FENCES,
    COUNT_CLONE_LIVES,
    COUNT_SHRINKS,
    COUNT_SHRUNK,
    COUNT_FORKS,
    COUNT_FORKS_READ,
    COUNTS
};
/* In all the runs of this process and its children. */
void counts_share(void);
void counts_add(enum count what);
void counts_print(void);

#endif
