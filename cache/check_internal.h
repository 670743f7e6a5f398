/*
 * What the files of volume_check() share: check.c (the order of things, the superblock, what is
 * there), check_log.c (the objects of the log), check_map.c (checkpoints, and the map that was made
 * of both), check_pins.c (snapshots, and a clone's bases). One thread, but for the reading of
 * objects.
 */
#ifndef S3VOL_CHECK_INTERNAL_H
#define S3VOL_CHECK_INTERNAL_H

#include "../store/checkpoint.h"
#include "../store/pin.h"
#include "scratch.h"
#include "tally.h"

#include <errno.h>
#include <stdio.h>

enum { CHECK_PATIENCE_MS = 60000 };

/* An object of the log that is not what it should be; the map says which blocks that concerns. */
struct bad_object {
    unsigned base; /* whose log: 0: the volume's own */
    uint64_t seq;
    const char *why;
    bool told;           /* a line was printed */
    uint64_t block, end; /* a run of blocks in it, to be told; none if equal */
};

/* A frame whose checksum does not match. */
struct bad_frame {
    unsigned base;
    uint64_t seq;
    uint32_t offset;
    struct entry entry; /* one that names it, of the object itself */
    bool told;
};

/* A line about an object of the log, held back: a claim to come may say that it was given up. */
struct held_line {
    uint64_t seq;
    char *text; /* malloc'ed */
};

struct check {
    struct store *store;
    struct superblock sb;
    struct scratch *scratch;
    FILE *report;
    uint64_t errors; /* lines in it */

    uint64_t *seqs; /* of the objects in log/, ascending */
    size_t nseqs, seqs_room;
    struct bad_object *bad; /* ascending */
    size_t nbad, bad_room;

    struct log_position map; /* what the map is as of */
    bool whole;              /* that is the log's end */
    uint64_t checkpoint;     /* the newest one's number; 0: there is none */
    uint64_t root;           /* the newest good one's number; 0: there is none */
    uint64_t needed_from;    /* before it segments are needed only if the map says so */
    uint64_t claim;          /* of the attachment that stored the newest good checkpoint; 0: none */

    uint64_t objects, left_over, frames, strangers;

    struct pin *pins;
    size_t npins;
    struct tally needed[BASES_MAX + 1]; /* by base: what the maps of the pins need; of bases, what
                                           the volume's own does, too */
    struct bad_frame *frames_bad;       /* of bases; of its own log if there are pins */
    size_t nframes;

    uint64_t
        held_at; /* lines are about the object of this number, and held back; 0: they are not */
    struct held_line *held; /* ascending */
    size_t nheld, held_room;
    bool no_memory;
};

/* Prints a line: an error. */
void check_wrong(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Prints the lines that are held back, or forgets those about numbers beyond `after`. */
void check_print_held(struct check *c);
void check_drop_held(struct check *c, uint64_t after);

/* "log/…: why: blocks 7 to 9"; with a note behind it, or "". */
void check_wrong_blocks(struct check *c, unsigned base, uint64_t seq, const char *why,
                        uint64_t block, uint64_t end, const char *note);

bool check_is_there(const struct check *c, uint64_t seq);
/* Notes that this one is bad, or finds what was noted. NULL: no memory. */
struct bad_object *check_note_bad(struct check *c, unsigned base, uint64_t seq, const char *why);
/* NULL: nothing is wrong with it. */
struct bad_object *check_find_bad(const struct check *c, unsigned base, uint64_t seq);
int check_note_frame(struct check *c, unsigned base, const struct entry *entry, bool told);

/* -EBADMSG, -EPROTONOSUPPORT and -EIO are about the object, and the check goes on. */
static inline bool check_is_damage(int err)
{
    return err == -EBADMSG || err == -EPROTONOSUPPORT || err == -EIO;
}

/* Every object of the log. */
int check_log(struct check *c);
/* Every checkpoint and the parts that it lists. */
int check_checkpoints(struct check *c);
/* Every place in the map must be in an object that is there and good. */
int check_map(struct check *c);
/* Lines about bad objects that no map needs. */
void check_tell_rest(struct check *c);

/* A walk over a map, for index_view_each(): tells of places that are in bad objects and frames. */
struct check_walk {
    struct check *c;
    char note[700]; /* behind each line: whose map it is; "": the volume's own */
};
int check_places(void *walk, const struct places *p);
void check_places_end(struct check_walk *walk);

/* check_pins.c, in this order: the pins; what their maps, and the volume's in its bases, need;
 * after check_log() the objects in bases; after check_map() what the pins' maps lack. */
int check_load_pins(struct check *c);
bool check_is_pinned_root(const struct check *c, uint64_t root);
int check_find_needs(struct check *c);
bool check_is_needed(const struct check *c, uint64_t seq); /* by a pin, of the volume's own log */
int check_bases(struct check *c);
int check_tell_pins(struct check *c);
void check_free_pins(struct check *c);

/* The needed objects of a base's log. */
int check_base_log(struct check *c, unsigned base, struct store *store);

#endif
