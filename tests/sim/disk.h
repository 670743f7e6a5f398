/*
 * The machines' local disks, in memory: everything below "/sim/", for the code under test by way of
 * --wrap, and for SQLite as its VFS. What was written and not synced is remembered write by write,
 * so that a power cut can keep any part of it, torn at sectors of 512 bytes.
 *
 *   kill -9     sched_kill() and disk_forget_process(): the files stay as they are
 *   power cut   disk_power_cut() as well: of what was written after the last sync of its file each
 *               sector stays or not, each truncation and each punched hole too; a file made stays
 *               if its directory was synced, one removed comes back perhaps; else by chance
 *   loss        disk_remove_all(): the cache directory is gone; disk_remove(): one file of it
 *
 * SQLite's files (index.db, its WAL) take part like every other; its shared memory ends with the
 * process. A sync that failed makes what it was to write doubtful for good, but for what of
 * index.db and its -wal is written again: later syncs say nothing of it.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <stdbool.h>

/* Makes it SQLite's default VFS, too. */
void disk_start(void);

/* The machine's process is gone: its file descriptors, its locks and shared memory. */
void disk_forget_process(int machine);
/* All files below `dir`. */
void disk_power_cut(const char *dir);
void disk_remove_all(const char *dir);
/* The one of this name, in `dir` or below. */
void disk_remove(const char *dir, const char *name);

/* Called by a thread that is about to sync a file, or a directory's names, or has just done so. */
extern void (*disk_on_sync)(bool names);

/* From now on one operation in so many below `dir` fails (0: none), or one write of files of this
 * name (NULL: all operations of all): EIO, or ENOSPC where it can be. */
void disk_fail_one_in(const char *dir, const char *name, unsigned n);
/* From now on one sync of slots in so many fails, and of index.db's WAL and of sums one in four
 * times as many; of all of them (0: none). */
void disk_fail_syncs_one_in(unsigned n);
/* The next sync of the file of this name (NULL: of none), below `dir`, fails. They stay the
 * caller's, until then. */
void disk_fail_next_sync(const char *dir, const char *name);

/* Of the writes of slots below `dir` (NULL: nowhere) one fails, half-way, once `after` went well.
 * It stays the caller's, until then. */
void disk_fail_a_write(const char *dir, unsigned after);

/* A bit of a file below `dir` of this name is another now, in the disk's view too. False: it has
 * none. */
bool disk_flip(const char *dir, const char *name);

#endif
