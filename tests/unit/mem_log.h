/* Machines that attach to one log in a bucket in memory. */
#ifndef MEM_LOG_H
#define MEM_LOG_H

#include "mem_store.h"

#include "../../store/log.h"

enum { SIZE_BLOCKS = 100000, PATIENCE_MS = 60000 };

static struct mem mem;

static const struct superblock mem_sb = {
    .uuid = "0123456789abcde",
    .size_bytes = (uint64_t)SIZE_BLOCKS * BLOCK_BYTES,
    .conditional_put = true,
};

struct machine {
    struct store *store;
    struct log *log;
    struct log_position pos;
    uint64_t missing;
    uint8_t nonce[UUID_BYTES];
};

/* The superblock says that the name is this volume's. */
static inline void name_volume(const struct superblock *sb)
{
    struct store *store = mem_store(&mem, &mem_clock);
    char text[NOTE_BYTES_MAX];
    size_t len;

    assert_int_equal(superblock_encode(sb, text, sizeof text, &len), 0);
    assert_int_equal(store_put(store, "volume", text, len, 0, PATIENCE_MS), 0);
    store_free(store);
}

static inline struct machine machine_on(const struct superblock *sb)
{
    struct machine m = {.store = mem_store(&mem, &mem_clock),
                        .pos = {.next = 1, .size_blocks = SIZE_BLOCKS}};

    assert_int_equal(log_new(m.store, sb, &mem_clock, &m.log), 0);
    assert_int_equal(random_bytes(m.nonce, sizeof m.nonce), 0);
    return m;
}

static inline struct machine machine(void)
{
    return machine_on(&mem_sb);
}

static inline void machine_free(struct machine *m)
{
    log_free(m->log);
    store_free(m->store);
}

static inline int ignore_commit(void *ctx, const struct header *last, const struct entry *entries,
                                size_t nentries, const struct log_position *pos)
{
    (void)ctx, (void)last, (void)entries, (void)nentries, (void)pos;
    return 0;
}

static inline int machine_claim(struct machine *m)
{
    return log_claim(m->log, &m->pos, m->missing, m->nonce, "host test", PATIENCE_MS);
}

/* Reads the log, and claims it. */
static inline int machine_attach(struct machine *m)
{
    int r = log_replay(m->log, &m->pos, ignore_commit, NULL, PATIENCE_MS, &m->missing);

    return r < 0 ? r : machine_claim(m);
}

/* One block of data at `block`, in the segment `seq` of the commit [first, last]. */
static inline int machine_append(struct machine *m, uint64_t seq, uint64_t first, uint64_t last,
                                 uint64_t block)
{
    struct entry e = {.kind = ENTRY_DATA,
                      .block = block,
                      .nblocks = 1,
                      .seq = seq,
                      .offset = HEADER_BYTES + ENTRY_BYTES,
                      .stored_bytes = BLOCK_BYTES,
                      .crc = 7,
                      .frame_blocks = 1};
    uint8_t buf[HEADER_BYTES + ENTRY_BYTES + BLOCK_BYTES] = {0};

    return log_append(m->log, seq, first, last, SIZE_BLOCKS, &e, 1, buf, sizeof buf);
}

/* A commit of one segment; its number. */
static inline uint64_t machine_commit(struct machine *m, uint64_t block)
{
    uint64_t seq = log_reserve(m->log, 1);

    assert_int_equal(machine_append(m, seq, seq, seq, block), 0);
    return seq;
}

/* What becomes of PUTs of one number; all else is well. */
struct one {
    uint64_t seq;
    enum mem_act act;
    int times; /* -1: always */
};

static inline enum mem_act one_put(void *ctx, char verb, const char *key)
{
    struct one *one = ctx;
    char wanted[STORE_KEY_MAX];

    log_key(one->seq, wanted);
    if (verb != 'P' || strcmp(key, wanted) != 0 || one->times == 0)
        return MEM_OK;
    if (one->times > 0)
        one->times--;
    return one->act;
}

static inline bool in_bucket(uint64_t seq)
{
    char key[STORE_KEY_MAX];

    log_key(seq, key);
    scope_lock(&mem.lock);
    return mem_find(&mem, key) != NULL;
}

static inline int mem_setup(void **state)
{
    (void)state;
    msg_set_sink(MSG_NONE);
    mem_init(&mem);
    return 0;
}

static inline int mem_teardown(void **state)
{
    (void)state;
    mem_destroy(&mem);
    return 0;
}

#endif
