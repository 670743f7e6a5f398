#include "journal.h"

#include "../../store/scope.h"
#include "../../store/sigv4.h"

#include <string.h>

enum { ENTRIES_MAX = 65536 };

static const char *const ops[] = {"GET", "HEAD", "PUT", "DELETE", "POST", "LIST"};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all of these */
static char *lines[ENTRIES_MAX];
static uint64_t nlines; /* ever; the newest is at (nlines - 1) % ENTRIES_MAX */
static uint64_t counts[ARRAY_SIZE(ops)], faults, errors, bytes_in, bytes_out, connections;

void journal_add(const struct journal_entry *e)
{
    char key[3 * 1200], *line = NULL;

    if (sigv4_encode(e->key, 1, key, sizeof key) < 0 || !key[0])
        strcpy(key, "-");
    if (asprintf(&line, "%s %s %d %llu %llu %.1f %s", e->op, key, e->status,
                 (unsigned long long)e->in, (unsigned long long)e->out, (double)e->us / 1000,
                 e->fault) < 0)
        return;
    scope_lock(&lock);
    free(lines[nlines % ENTRIES_MAX]);
    lines[nlines++ % ENTRIES_MAX] = line;
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
        counts[i] += strcmp(e->op, ops[i]) == 0;
    errors += e->status == 0 || e->status >= 400;
    faults += strcmp(e->fault, "-") != 0;
    bytes_in += e->in;
    bytes_out += e->out;
}

void journal_connected(void)
{
    scope_lock(&lock);
    connections++;
}

void journal_clear(void)
{
    scope_lock(&lock);
    for (size_t i = 0; i < ENTRIES_MAX; i++) {
        free(lines[i]);
        lines[i] = NULL;
    }
    nlines = faults = errors = bytes_in = bytes_out = connections = 0;
    memset(counts, 0, sizeof counts);
}

void journal_print(FILE *to)
{
    scope_lock(&lock);
    for (uint64_t i = nlines > ENTRIES_MAX ? nlines - ENTRIES_MAX : 0; i < nlines; i++)
        fprintf(to, "%s\n", lines[i % ENTRIES_MAX]);
}

void journal_print_stats(FILE *to)
{
    uint64_t total = 0;

    scope_lock(&lock);
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        fprintf(to, "%s %llu\n", ops[i], (unsigned long long)counts[i]);
        total += counts[i];
    }
    fprintf(to, "requests %llu\nerrors %llu\nfaults %llu\nbytes_in %llu\nbytes_out %llu\n",
            (unsigned long long)total, (unsigned long long)errors, (unsigned long long)faults,
            (unsigned long long)bytes_in, (unsigned long long)bytes_out);
    fprintf(to, "connections %llu\n", (unsigned long long)connections);
}
