/* The files of disk.c, for syscalls.c and vfs.c. Nothing here yields; the callers do. */
#ifndef SIM_DISK_INTERNAL_H
#define SIM_DISK_INTERNAL_H

#include "disk.h"

#include <stddef.h>
#include <stdint.h>

enum { SECTOR = 512, PAGE = 4096, PATH_BYTES = 128, LOCK_SLOTS = 8 };

/* Bytes by page; a page that is not there is zeros. */
struct content {
    uint8_t **pages;
    size_t npages;
    uint64_t size;
};

enum change_kind { CHANGE_WRITE, CHANGE_TRUNCATE, CHANGE_PUNCH };
struct change {
    enum change_kind kind;
    bool doubtful; /* a sync of it failed */
    uint64_t number;
    uint64_t offset, len;
    uint8_t *bytes;
};

struct file {
    struct file *next;
    char path[PATH_BYTES];
    bool removed, removal_synced, name_synced;
    struct content now, synced;
    struct change *changes; /* since the last sync */
    size_t nchanges, room;
    uint64_t last_change;
    const void *flocked;   /* by this descriptor */
    struct vfs_state *vfs; /* locks and shared memory of SQLite's (vfs.c) */
};

/* It is that directory, or in it. */
bool file_is_below(const char *path, const char *dir);
struct file *file_find(const char *path);
struct file *file_make(const char *path);
void file_remove(struct file *f, bool synced);
size_t file_read(const struct file *f, void *buf, size_t len, uint64_t offset);
void file_write(struct file *f, const void *buf, size_t len, uint64_t offset);
void file_truncate(struct file *f, uint64_t size);
void file_punch(struct file *f, uint64_t offset, uint64_t len);
/* All changes up to that number. -EIO, sometimes. */
int file_sync(struct file *f, uint64_t upto);
/* What a failed sync left is not in memory any more: some of it is lost. */
void file_forget_doubtful(struct file *f);
/* What was made and removed in the directory. */
void file_sync_names(const char *dir);
/* 0, or the error that this operation has to have. */
int disk_fault(const struct file *f, bool may_be_full);
void vfs_start(void);

#endif
