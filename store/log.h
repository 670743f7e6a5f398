/*
 * The log: segments and claims, numbered. Reading it, claiming its end, appending to it.
 * DESIGN.md ("The log") has the rules and why they are safe.
 */
#ifndef S3VOL_LOG_H
#define S3VOL_LOG_H

#include "entry.h"
#include "header.h"
#include "store.h"
#include "superblock.h"

enum {
    LOG_HEAD_BYTES = 64 * 1024,
    LOG_WHO_BYTES_MAX = 256, /* of the text in a claim */
    LOG_TARGET_BYTES = 16,   /* in front of a rollback's text: root and seq */
#ifndef SMALL_LIMITS
    LOG_WINDOW = 1024,      /* numbers in flight beyond the last one acknowledged in order */
    LOG_AHEAD = 8,          /* that who was outrun claims ahead, to begin with */
    LOG_ENTRIES_MAX = 2044, /* so that header and table fit into LOG_HEAD_BYTES */
    LOG_SEGMENT_RAW_BYTES = 8 * 1024 * 1024, /* frames in one segment, before compression */
#else /* the simulation is built with these, so as to meet them all in a small volume */
    LOG_WINDOW = 8,
    LOG_AHEAD = 1,
    LOG_ENTRIES_MAX = 20,
    LOG_SEGMENT_RAW_BYTES = 128 * 1024,
#endif
};

/* What has been read of a log: the map made of it, and where it goes on. */
struct log_position {
    uint64_t
        seq; /* all up to this one is in the map: the end of a commit, or a claim; 0: nothing */
    uint64_t next; /* the number that follows */
    uint64_t size_blocks;
    uint64_t epoch;            /* of the newest claim; 0: none yet */
    uint8_t nonce[UUID_BYTES]; /* of the newest that was none ahead: who attached last */
    uint64_t claim;            /* its number */
};

struct log;

/* Borrows `store` and `clock`. Makes no request. */
int log_new(struct store *store, const struct superblock *sb, const struct clock *clock,
            struct log **ret_log);
void log_free(struct log *log);

/* "log/0000000000000001"; false from parsing: this is no such key. */
void log_key(uint64_t seq, char ret_key[STORE_KEY_MAX]);
bool log_parse_key(const char *key, uint64_t *ret_seq);

/* Calls `apply` for every whole commit and every claim from pos->next on, in order: `last` is the
 * header of the commit's last segment, or the claim's. A positive
 * return of it ends the reading, as if the log ended there. Then `*pos` is after it. Stops at the
 * first missing number, *ret_missing; what is there of an unfinished commit before it is not
 * applied. -ENOENT, silently: something was deleted, as a newer checkpoint does not need it; start
 * over from that. */
typedef int log_apply_fn(void *ctx, const struct header *last, const struct entry *entries,
                         size_t nentries, const struct log_position *pos);
int log_replay(struct log *log, struct log_position *pos, log_apply_fn *apply, void *ctx,
               int64_t patience_ms, uint64_t *ret_missing);

/* The same up to number `last` only, the end of a commit or a claim, which has to be there: else
 * -EBADMSG, or -ENOENT as above, with a message. */
int log_replay_to(struct log *log, struct log_position *pos, uint64_t last, log_apply_fn *apply,
                  void *ctx, int64_t patience_ms);

/* The same, without a listing: number by number up to the first missing one, and nothing is between
 * that and the return. For who is close behind a writer that goes on. */
int log_follow(struct log *log, struct log_position *pos, log_apply_fn *apply, void *ctx,
               int64_t patience_ms, uint64_t *ret_missing);

/* From here on readers of this log may begin before checkpoints that there are, and expect nothing
 * between to have been deleted: for check and repair. */
void log_go_back(struct log *log);
bool log_goes_back(const struct log *log);

/* Reads one object's header and table. `*ret_entries` is malloc'ed (NULL for a claim). Damage is
 * reported. -ENOENT silently. */
int log_read(struct log *log, uint64_t seq, struct header *ret_header, struct entry **ret_entries,
             int64_t patience_ms);

/* The same of an object's first bytes, without I/O; *ret_why on -EBADMSG and -EPROTONOSUPPORT. */
int log_decode(const struct superblock *sb, uint64_t seq, const void *head, size_t len,
               struct header *ret_header, struct entry **ret_entries, const char **ret_why);

/* Who made the claim of that number, and when, for people; "" for 0. */
int log_describe_claim(struct log *log, uint64_t claim, char *buf, size_t size_bytes,
                       int64_t patience_ms);

/* Claims the number `missing`, with a new nonce that the caller has made durable before (in
 * claim_nonce); `who` names this machine for messages. 0: the log is ours, *pos is after the claim.
 * -EAGAIN: a segment appeared there, or a claim ahead of ours; read on and try again. -EBUSY, with
 * a message: somebody else attached at this moment. */
int log_claim(struct log *log, struct log_position *pos, uint64_t missing,
              const uint8_t claim_nonce[UUID_BYTES], const char *who, int64_t patience_ms);

/* For whom the writer is always quicker: claims a number `ahead` (1 … LOG_WINDOW) beyond `missing`,
 * which the writer will come to, and not get past. 0: stored; read on and log_claim(), again and
 * again: at the latest behind this claim nobody is quicker. 0 as well if somebody else's claim
 * is there already. -EAGAIN: the writer has been there: the same further ahead. */
int log_claim_ahead(struct log *log, const struct log_position *pos, uint64_t missing,
                    unsigned ahead, const uint8_t claim_nonce[UUID_BYTES], const char *who,
                    int64_t patience_ms);

/* The same as log_claim() for a log that has been damaged, where more than one number may be the
 * one that an older writer lacks: claims each of them, `fences` (ascending, `nfences` of them at
 * least 1), with the log going on behind the last one, which becomes *pos. -EAGAIN: somebody's
 * object appeared at one of them; those before it are claimed. */
int log_fence(struct log *log, struct log_position *pos, const uint64_t *fences, size_t nfences,
              const char *who, int64_t patience_ms);

/* log_claim(), and from this claim on the volume is as of the checkpoint `root` (0: none) with the
 * log up to `seq`, of pos->size_blocks: in the moment that the claim is stored, not before. */
int log_claim_rollback(struct log *log, struct log_position *pos, uint64_t missing,
                       const uint8_t claim_nonce[UUID_BYTES], const char *who, uint64_t root,
                       uint64_t seq, int64_t patience_ms);

/* --- after log_claim() --- */

/* Takes the next `n` numbers for one commit; the first is returned. Caller: one thread. */
uint64_t log_reserve(struct log *log, unsigned n);

/* A segment of the commit [first, last], with room for the header and the table in front:
 * `buf` is header, nentries * ENTRY_BYTES, frames; `len` bytes in all. Writes header and table,
 * stores it, and returns when it is durable. Waits while the number is out of the window; tries for
 * ever. -ESTALE: fenced; -ECANCELED: it, or the store, was stopped. */
int log_append(struct log *log, uint64_t seq, uint64_t first, uint64_t last, uint64_t size_blocks,
               const struct entry *entries, unsigned nentries, void *buf, size_t len);

/* From here on nothing is appended: to be called with store_stop(), as what waits for the window
 * sends no request that would hear of that. Any thread. */
void log_stop(struct log *log);

/* Everything up to this number is durable. */
uint64_t log_acknowledged(struct log *log);

/* The volume of this name is still ours: nobody deleted it, nor made another, which a log of its
 * own begins with. A small request. -ESTALE: fenced. */
int log_still_named(struct log *log, int64_t patience_ms);

/* So it is, and nobody attached before this call: there is no claim behind the last number
 * acknowledged. A listing more, and a small request for each segment under way. -ESTALE: fenced. */
int log_still_ours(struct log *log, int64_t patience_ms);

/* The first number that is ours: what our claim jumped to. */
uint64_t log_first_own(const struct log *log);

/* Our attachment's. */
uint64_t log_epoch(const struct log *log);

/* What happened to the volume that took it from us, for people; false if nothing did. */
bool log_fenced(struct log *log, char *buf, size_t size_bytes);

/* For modules of this layer. */
struct store *log_store(struct log *log);
const struct superblock *log_superblock(struct log *log);
void log_describe(struct log *log, struct header *header); /* uuid, nonce, epoch, claim, wall_ms */

#endif
