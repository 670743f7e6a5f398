/*
 * Notes: small objects that are one line of JSON, whose last member is a checksum of all that
 * stands before it (superblock, snapshots). Written with format(), read with SQL: SQLite's JSON
 * parser is fuzzed around the clock, and is linked anyway. Pure.
 */
#ifndef S3VOL_NOTE_H
#define S3VOL_NOTE_H

#include <sqlite3.h>
#include <stddef.h>

enum { NOTE_BYTES_MAX = 8192 };

/* `text` as a JSON string with its quotes. -EINVAL for control characters, -ENAMETOOLONG. */
int note_quote(const char *text, char *ret, size_t size_bytes);

/* `buf` holds the members, "{" in front and nothing behind: appends the checksum and the end. */
int note_seal(char *buf, size_t size_bytes, size_t *ret_len);

/* Runs `sql`, whose ?1 is the text, and calls `row` for each row that it gives: 0, or -EBADMSG or
 * -EPROTONOSUPPORT with *ret_why, which ends it. The checksum is looked at last: a version from the
 * future may keep it elsewhere. */
typedef int note_row_fn(void *ctx, sqlite3_stmt *row, const char **ret_why);
int note_read(const void *data, size_t len, const char *sql, note_row_fn *row, void *ctx,
              const char **ret_why);

#endif
