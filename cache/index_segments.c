/* The table of segments in index.db: what each holds, and how much of it is needed. The contract is
 * in index.h. */
#include "index_internal.h"

#include "../store/scope.h"

/* Whether segment ?1 is needed by a pin, for rows that come after index_pin_segments(). */
#define PINNED                                                                                     \
    "ifnull((SELECT last >= ?1 FROM pins WHERE first <= ?1 ORDER BY first DESC LIMIT 1), 0)"

int index_segments_prepare(struct index *ix)
{
    const struct {
        sqlite3 *db;
        const char *sql;
        sqlite3_stmt **q;
    } all[] = {
        {ix->db,
         "INSERT INTO segments VALUES(?1, ?2, ?3, ?4, iif(?3 > 0, NULL, ?5), " PINNED ")"
         " ON CONFLICT(seq) DO UPDATE SET stored = stored + ?2, blocks = blocks + ?3,"
         " bytes = bytes + ?4, dead_seq = iif(blocks + ?3 > 0, NULL, ifnull(dead_seq, ?5))",
         &ix->q.tally_segment},
        {ix->db, "DELETE FROM segments WHERE seq = ?1", &ix->q.drop_segment},
        {ix->db, "INSERT INTO pins VALUES(?1, ?2)", &ix->q.add_pin},
        {ix->db, "UPDATE segments SET pinned = 1 WHERE seq BETWEEN ?1 AND ?2", &ix->q.pin_segments},
        {ix->db, "UPDATE segments SET stored = ?2 WHERE seq = ?1 AND dead_seq IS NULL",
         &ix->q.size_segment},
        {ix->db, "INSERT OR IGNORE INTO segments VALUES(?1, ?2, 0, 0, ?3, " PINNED ")",
         &ix->q.add_dead},
        {ix->segments_db, "SELECT 1 FROM segments WHERE seq = ?1", &ix->knows},
        {ix->segments_db,
         "SELECT total(stored), total(bytes), total(iif(dead_seq IS NULL OR pinned, 0, stored)),"
         " total(iif(dead_seq > ?1 AND NOT pinned, stored, 0)),"
         " total(iif(pinned, stored, 0)), total(iif(pinned, bytes, 0)) FROM segments",
         &ix->space},
        {ix->segments_db,
         "SELECT seq, stored, blocks, bytes FROM segments WHERE dead_seq IS NULL AND NOT pinned"
         " AND bytes < ?1 * stored AND seq <= ?2 ORDER BY bytes * 1.0 / stored LIMIT ?3",
         &ix->victims},
        {ix->segments_db,
         "SELECT seq, stored FROM segments WHERE dead_seq <= ?1 AND NOT pinned AND seq > ?2"
         " ORDER BY seq LIMIT ?3",
         &ix->dead},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(all) && r == 0; i++)
        r = index_prepare(ix, all[i].db, all[i].sql, all[i].q);
    return r;
}

void index_segments_finalize(struct index *ix)
{
    sqlite3_finalize(ix->knows);
    sqlite3_finalize(ix->space);
    sqlite3_finalize(ix->victims);
    sqlite3_finalize(ix->dead);
}

int index_tally_locked(struct index *ix, struct tally *tally, uint64_t seq)
{
    sqlite3_stmt *q = ix->q.tally_segment;
    int r = 0;

    tally_settle(tally);
    for (size_t i = 0; i < tally->n && r == 0; i++) {
        const struct tally_item *item = &tally->items[i];
        if (!item->blocks && !item->bytes && !item->stored)
            continue;
        bind_u64(q, 1, item->seq);
        sqlite3_bind_int64(q, 2, item->stored);
        sqlite3_bind_int64(q, 3, item->blocks);
        sqlite3_bind_int64(q, 4, item->bytes);
        bind_u64(q, 5, seq);
        r = index_step(ix, q);
    }
    return r;
}

/* ------------------------------------------------------------------ inventory */

int index_inventory(struct index *ix, const struct index_found *found, size_t n)
{
    scope_lock(&ix->write_lock);
    struct index_meta m = ix->meta;
    int r = index_step(ix, ix->q.begin);

    for (size_t i = 0; i < n && r == 0; i++) {
        sqlite3_stmt *q = found[i].dead_seq ? ix->q.add_dead : ix->q.size_segment;
        bind_u64(q, 1, found[i].seq);
        bind_u64(q, 2, found[i].stored_bytes);
        if (found[i].dead_seq)
            bind_u64(q, 3, found[i].dead_seq);
        r = index_step(ix, q);
    }
    m.inventoried = true;
    if (r == 0)
        r = index_put_meta_locked(ix, &m);
    return index_end_locked(ix, r, &m);
}

int index_forget_segments(struct index *ix, const uint64_t *seqs, size_t n)
{
    scope_lock(&ix->write_lock);
    int r = index_step(ix, ix->q.begin);

    for (size_t i = 0; i < n && r == 0; i++) {
        bind_u64(ix->q.drop_segment, 1, seqs[i]);
        r = index_step(ix, ix->q.drop_segment);
    }
    return index_end_locked(ix, r, &ix->meta);
}

int index_pin_segments(struct index *ix, const struct index_range *ranges, size_t n)
{
    scope_lock(&ix->write_lock);
    sqlite3_stmt *const both[] = {ix->q.add_pin, ix->q.pin_segments};
    int r = index_step(ix, ix->q.begin);

    if (r == 0)
        r = index_exec(ix, "DELETE FROM pins; UPDATE segments SET pinned = 0 WHERE pinned");
    for (size_t i = 0; i < 2 * n && r == 0; i++) {
        bind_u64(both[i % 2], 1, ranges[i / 2].first);
        bind_u64(both[i % 2], 2, ranges[i / 2].last);
        r = index_step(ix, both[i % 2]);
    }
    return index_end_locked(ix, r, &ix->meta);
}

/* ------------------------------------------------------------------ looking up */

int index_space(struct index *ix, uint64_t root_seq, struct index_space *ret)
{
    scope_lock(&ix->segments_lock);
    int r = 0;

    bind_u64(ix->space, 1, root_seq);
    if (sqlite3_step(ix->space) == SQLITE_ROW)
        *ret = (struct index_space){.stored_bytes = column_u64(ix->space, 0),
                                    .live_bytes = column_u64(ix->space, 1),
                                    .dead_bytes = column_u64(ix->space, 2),
                                    .fresh_dead_bytes = column_u64(ix->space, 3),
                                    .pinned_stored_bytes = column_u64(ix->space, 4),
                                    .pinned_live_bytes = column_u64(ix->space, 5)};
    else
        r = index_error(ix, ix->segments_db, "read");
    sqlite3_reset(ix->space);
    return r;
}

int index_knows_segment(struct index *ix, uint64_t seq, bool *ret_known)
{
    scope_lock(&ix->segments_lock);
    int r = 0;

    bind_u64(ix->knows, 1, seq);
    int step = sqlite3_step(ix->knows);
    if (step == SQLITE_ROW || step == SQLITE_DONE)
        *ret_known = step == SQLITE_ROW;
    else
        r = index_error(ix, ix->segments_db, "read");
    sqlite3_reset(ix->knows);
    return r;
}

static int read_segments(struct index *ix, sqlite3_stmt *q, struct index_segment *ret, size_t max,
                         size_t *ret_n)
{
    size_t n = 0;
    int step, r = 0;

    while ((step = sqlite3_step(q)) == SQLITE_ROW && n < max)
        ret[n++] = (struct index_segment){.seq = column_u64(q, 0),
                                          .stored_bytes = column_u64(q, 1),
                                          .live_blocks = column_u64(q, 2),
                                          .live_bytes = column_u64(q, 3)};
    if (step != SQLITE_DONE && step != SQLITE_ROW)
        r = index_error(ix, ix->segments_db, "read");
    sqlite3_reset(q);
    if (r == 0)
        *ret_n = n;
    return r;
}

int index_victims(struct index *ix, double live_most, uint64_t upto, struct index_segment *ret,
                  size_t max, size_t *ret_n)
{
    scope_lock(&ix->segments_lock);
    sqlite3_bind_double(ix->victims, 1, live_most);
    bind_u64(ix->victims, 2, upto);
    bind_u64(ix->victims, 3, max);
    return read_segments(ix, ix->victims, ret, max, ret_n);
}

int index_dead(struct index *ix, uint64_t dead_seq, uint64_t after, struct index_segment *ret,
               size_t max, size_t *ret_n)
{
    scope_lock(&ix->segments_lock);
    bind_u64(ix->dead, 1, dead_seq);
    bind_u64(ix->dead, 2, after);
    bind_u64(ix->dead, 3, max);
    return read_segments(ix, ix->dead, ret, max, ret_n);
}
