/*
 * Checkpoints: the whole map as of one number of the log. A root object ("map/<seq>") lists parts
 * ("part/<seq>.<index>"), each with the entries of a range of chunks; parts that did not change
 * since the last checkpoint of the same attachment are listed again instead of being stored again.
 * Formats: store/DESIGN.md.
 */
#ifndef S3VOL_CHECKPOINT_H
#define S3VOL_CHECKPOINT_H

#include "log.h"
#include "part.h"

/* --- writing: one thread --- */

struct checkpoint;
int checkpoint_new(struct log *log, const struct log_position *pos, int64_t patience_ms,
                   struct checkpoint **ret_checkpoint);
/* The data entries of one chunk; chunks ascend. Stores a part whenever one is full. */
int checkpoint_add(struct checkpoint *cp, const struct entry *entries, unsigned nentries);
/* All chunks of this part stand as they did; chunks ascend. */
int checkpoint_reuse(struct checkpoint *cp, const struct part *part);
/* Stores the root: from here on the checkpoint exists. Gives the parts that it lists (the caller
 * frees ret_list->parts) and the bytes that were stored. */
int checkpoint_finish(struct checkpoint *cp, struct part_list *ret_list, uint64_t *ret_bytes);
void checkpoint_free(struct checkpoint *cp);

/* Deletes every root older than `keep_seq` that is none of `pinned`, and every part that none of
 * the `nlists` lists names and that is not newer than `keep_seq`. */
int checkpoint_clean(struct log *log, uint64_t keep_seq, const uint64_t *pinned, size_t npinned,
                     const struct part_list *lists, size_t nlists, int64_t patience_ms);

/* --- reading --- */

/* "map/0000000000000001"; false from parsing: this is no such key. */
void checkpoint_key(uint64_t seq, char ret_key[STORE_KEY_MAX]);
bool checkpoint_parse_key(const char *key, uint64_t *ret_seq);

/* *ret_seq 0: there is none. */
int checkpoint_newest(struct log *log, uint64_t *ret_seq, int64_t patience_ms);

/* The parts of a root; the caller frees ret_list->parts. -ENOENT silently. */
int checkpoint_parts(struct log *log, uint64_t seq, int64_t patience_ms, struct header *ret_header,
                     struct part_list *ret_list);

/* Whether all parts of a root are there. -ENOENT, silently: the root is not. -EBADMSG: a part is
 * missing, which was reported: roots are deleted before their parts. */
int checkpoint_expect_parts(struct log *log, uint64_t seq, int64_t patience_ms);

/* Calls `add` with the entries of every part, in order of blocks, and sets *ret_pos. -ENOENT,
 * silently: it was deleted meanwhile, a newer one exists. */
typedef int checkpoint_add_fn(void *ctx, const struct entry *entries, size_t nentries);
int checkpoint_load(struct log *log, uint64_t seq, checkpoint_add_fn *add, void *ctx,
                    int64_t patience_ms, struct log_position *ret_pos);

#endif
