/*
 * SQLite believes what it reads. This VFS, on top of the default one, does not: every page of the
 * database file ends with a checksum of its bytes and its number, written and compared here; a page
 * that does not match is SQLITE_IOERR_DATA. (The -wal has checksums of SQLite's own.) And a sync
 * that failed, of either, fails for ever: else what follows might be called durable, and not be.
 */
#ifndef S3VOL_INDEX_PAGES_H
#define S3VOL_INDEX_PAGES_H

enum { INDEX_PAGE_BYTES = 4096, INDEX_PAGE_RESERVED = 8 };

/* The name for sqlite3_open_v2(); made at the first call. NULL without memory. A new database must
 * be given INDEX_PAGE_RESERVED with SQLITE_FCNTL_RESERVE_BYTES, and INDEX_PAGE_BYTES. */
const char *index_pages_vfs(void);

#endif
