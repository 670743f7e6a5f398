#include "counts.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static unsigned *counts;

void counts_share(void)
{
    counts = mmap(NULL, COUNTS * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                  -1, 0);
    if (counts == MAP_FAILED)
        abort();
}

void counts_add(enum count what)
{
    __atomic_fetch_add(&counts[what], 1, __ATOMIC_RELAXED);
}

void counts_print(void)
{
    static const char *const names[COUNTS] = {
        "runs with snapshots",
        "snapshots made offline",
        "online",
        "rollbacks",
        "clones",
        "snapshots deleted",
        "errands that died",
        "that had taken effect",
        "stopped for up to a day",
        "refused or failed",
        "what died took effect later",
        "pins that were no good",
        "first looks",
        "later looks",
        "not judged",
        "instants before a rollback seen",
        "attachments to clones",
        "shrinkings begun",
        "done",
        "forks opened",
        "read whole",
    };

    for (int i = 0; i < COUNTS; i++)
        printf("%s%s: %u", i ? ", " : "", names[i], counts[i]);
    putchar('\n');
}
