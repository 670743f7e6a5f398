/* What index.c (file, meta, cached rows), index_map.c (the map) and index_segments.c share. All SQL
 * is in these. */
#ifndef S3VOL_INDEX_INTERNAL_H
#define S3VOL_INDEX_INTERNAL_H

#include "index.h"
#include "tally.h"

#include <sqlite3.h>
#include <stdatomic.h>

struct index {
    char path[512];
    atomic_bool damaged;

    pthread_mutex_t write_lock; /* guards db, its statements, and meta */
    sqlite3 *db;
    struct index_meta meta; /* as stored */
    uint8_t uuid[UUID_BYTES];
    struct {
        sqlite3_stmt *begin, *commit, *rollback;
        sqlite3_stmt *put_meta;
        sqlite3_stmt *put_cached, *drop_cached, *trim_cached;
        sqlite3_stmt *get_places, *put_places, *drop_places, *read_range, *drop_range;
        sqlite3_stmt *tally_segment, *drop_segment, *size_segment, *add_dead, *add_pin,
            *pin_segments;
    } q;
    struct tally reload;           /* of the map that is being loaded */
    uint64_t reload_blocks;        /* it has so many */
    size_t reload_bytes;           /* of places since the last commit */
    bool reload_prepared;          /* it is the map, in the transaction that is not over */
    struct index_meta reload_meta; /* then: what goes with it */

    pthread_mutex_t read_lock; /* guards what follows */
    sqlite3 *read_db;
    sqlite3_stmt *load, *mask, *scan;

    pthread_mutex_t segments_lock; /* guards what follows: to look at all segments takes long */
    sqlite3 *segments_db;
    sqlite3_stmt *knows, *space, *victims, *dead;
};

/* Reports what SQLite says, and translates it. */
int index_error(struct index *ix, sqlite3 *db, const char *what);
/* A connection, also if that fails. */
int index_connect(struct index *ix, int flags, sqlite3 **ret_db);
int index_prepare(struct index *ix, sqlite3 *db, const char *sql, sqlite3_stmt **ret_stmt);
/* Runs a statement that gives no rows, and resets it. */
int index_step(struct index *ix, sqlite3_stmt *q);
int index_exec(struct index *ix, const char *sql);

/* Inside a transaction, with write_lock held. */
int index_put_meta_locked(struct index *ix, const struct index_meta *meta);
/* Ends a transaction that went as `r` says; on success meta becomes `meta`. */
int index_end_locked(struct index *ix, int r, const struct index_meta *meta);

int index_map_prepare(struct index *ix);
void index_map_finalize(struct index *ix);
int index_segments_prepare(struct index *ix);
void index_segments_finalize(struct index *ix);
/* Takes in what a change of the map, now as of `seq`, means for the segments. In a transaction. */
int index_tally_locked(struct index *ix, struct tally *tally, uint64_t seq);

static inline void bind_u64(sqlite3_stmt *q, int at, uint64_t n)
{
    sqlite3_bind_int64(q, at, (sqlite3_int64)n);
}
static inline uint64_t column_u64(sqlite3_stmt *q, int at)
{
    return (uint64_t)sqlite3_column_int64(q, at);
}

#endif
