/* import: a new volume of a disk image. */
#include "command.h"

#include "../cache/unfinished.h"
#include "../store/bytes.h"
#include "../store/msg.h"
#include "../store/scope.h"
#include "work.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum { BLOCK = 4096, PIECE_BYTES = 1024 * 1024 };

struct source {
    const char *name;
    int fd;
    bool stream;         /* read once, in order */
    uint64_t size_bytes; /* it must have */
    uint64_t data_bytes; /* not more of it is no hole */
    uint64_t data_end;   /* of the extent at hand */
};

/* ---------------------------------------------------------------------------- what is read */

static int cannot_read(const struct source *s)
{
    int err = errno;

    return msg_error(-err, "%s: %s", s->name, strerror(err));
}

/* Size and kind; `given_bytes` is what --size says. */
static int look_at(struct source *s, uint64_t given_bytes)
{
    struct stat st;

    if (fstat(s->fd, &st) < 0)
        return cannot_read(s);
    s->stream = s->stream || S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode);
    if (S_ISREG(st.st_mode) && !s->stream) {
        s->size_bytes = (uint64_t)st.st_size;
        s->data_bytes = MIN((uint64_t)st.st_blocks * 512, s->size_bytes);
    } else if (S_ISBLK(st.st_mode) && !s->stream) {
        if (ioctl(s->fd, BLKGETSIZE64, &s->size_bytes) < 0)
            return cannot_read(s);
        s->data_bytes = s->size_bytes;
    } else if (s->stream) {
        s->size_bytes = s->data_bytes = given_bytes;
    } else {
        return msg_error(-EINVAL, "%s: is neither a file nor a block device", s->name);
    }
    if (s->stream && !given_bytes)
        return msg_error(-EINVAL, "%s: say with --size how many bytes will come", s->name);
    if (!s->stream && given_bytes)
        return msg_error(-EINVAL, "%s: has a size of its own: --size is for what comes from a pipe",
                         s->name);
    return s->size_bytes ? 0 : msg_error(-EINVAL, "%s: is empty", s->name);
}

static int open_source(const char *name, uint64_t given_bytes, struct source *ret)
{
    bool standard = strcmp(name, "-") == 0;
    struct source s = {.name = standard ? "standard input" : name, .stream = standard};

    s.fd = standard ? STDIN_FILENO : open(name, O_RDONLY | O_CLOEXEC);
    if (s.fd < 0)
        return cannot_read(&s);
    int r = look_at(&s, given_bytes);
    if (r < 0) {
        close(s.fd);
        return r;
    }
    (void)posix_fadvise(s.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *ret = s;
    return 0;
}

/* The next place from `at` on where there is data; the end, if there is none. */
static uint64_t skip_hole(struct source *s, uint64_t at)
{
    if (s->stream || at < s->data_end)
        return at;
    off_t data = lseek(s->fd, (off_t)at, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return s->size_bytes;
    off_t hole = data < 0 ? -1 : lseek(s->fd, data, SEEK_HOLE);
    if (hole < 0) { /* it does not tell */
        s->data_end = s->size_bytes;
        return at;
    }
    s->data_end = MIN((uint64_t)hole, s->size_bytes);
    return MIN(MAX(at, ROUND_DOWN((uint64_t)data, (uint64_t)BLOCK)), s->size_bytes);
}

/* All of it, or an error. */
static int read_piece(struct source *s, uint8_t *buf, size_t len, uint64_t at)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = s->stream ? read(s->fd, buf + done, len - done)
                              : pread(s->fd, buf + done, len - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cannot_read(s);
        if (n == 0)
            return msg_error(-EIO, "%s: ended after %" PRIu64 " bytes; %" PRIu64 " were to come",
                             s->name, at + done, s->size_bytes);
        done += (size_t)n;
    }
    return 0;
}

/* A file that was cut off ends in a hole, it seems; and of a pipe nothing may be left over. */
static int expect_end(struct source *s)
{
    struct stat st;
    char more;

    if (s->stream && read(s->fd, &more, 1) > 0)
        return msg_error(-EFBIG, "%s: more than the %" PRIu64 " bytes that --size says came",
                         s->name, s->size_bytes);
    if (!s->stream && fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode) &&
        (uint64_t)st.st_size != s->size_bytes)
        return msg_error(-EIO, "%s: its size changed meanwhile", s->name);
    return 0;
}

/* ---------------------------------------------------------------------------- copying */

struct importing {
    struct options *options;
    struct work *work;
    struct source source;
    uint8_t *buf; /* PIECE_BYTES, aligned */
};

/* [at, at + len), to the end of its last block. */
static int copy_piece(struct importing *im, struct volume *volume, uint64_t at, size_t len)
{
    size_t whole = ROUND_UP(len, (size_t)BLOCK);
    int r = read_piece(&im->source, im->buf, len, at);

    if (r < 0)
        return r;
    if (at == 0 && len > 4 && memcmp(im->buf, "QFI\xfb", 4) == 0)
        msg_warn("%s: is a qcow2 image, and becomes the volume as it is, not what is in it; "
                 "`qemu-img convert -O raw` makes a raw one",
                 im->source.name);
    memset(im->buf + len, 0, whole - len);
    return all_zero(im->buf, whole) ? 0 : volume_write(volume, im->buf, whole, at, true);
}

/* Pieces end where units of the volume do, or at a hole. */
static uint64_t piece_end(const struct source *s, uint64_t at)
{
    uint64_t end = ROUND_DOWN(at, (uint64_t)PIECE_BYTES) + PIECE_BYTES;

    if (!s->stream)
        end = MIN(end, ROUND_UP(s->data_end, (uint64_t)BLOCK));
    return MIN(end, s->size_bytes);
}

static int copy(struct importing *im, struct volume *volume)
{
    struct source *s = &im->source;
    uint64_t at = 0, read_bytes = 0;
    int r = 0;

    while (r == 0 && (at = skip_hole(s, at)) < s->size_bytes) {
        uint64_t end = piece_end(s, at);
        r = work_is_stopped(im->work) ? -ECANCELED : copy_piece(im, volume, at, (size_t)(end - at));
        read_bytes = MIN(read_bytes + end - at, s->data_bytes);
        at = end;
        work_set_left(im->work, MIN(s->size_bytes - at, s->data_bytes - read_bytes));
    }
    work_set_left(im->work, 0);
    return r == 0 ? expect_end(s) : r;
}

static int fill(void *ctx, struct volume *volume)
{
    struct importing *im = ctx;

    work_set_volume(im->work, volume);
    int r = copy(im, volume);
    if (r == 0)
        r = volume_drain(volume);
    work_set_volume(im->work, NULL);
    return r;
}

/* ---------------------------------------------------------------------------- the whole */

static int make(struct importing *im, struct store *store)
{
    struct options *options = im->options;
    int r = unfinished_clear(store, options->volume.cache_dir);

    options->create.size_bytes =
        MAX(ROUND_UP(im->source.size_bytes, (uint64_t)BLOCK), VOLUME_BYTES_MIN);
    options->create.unfinished = true;
    if (r == 0)
        r = volume_create(store, &options->create);
    if (r == 0)
        r = unfinished_fill(store, &options->volume, false, fill, im);
    if (r == -ECANCELED || r == -ENOMEM) /* else it was said */
        msg_error(r, "%s: not imported: %s", store_url(store), strerror(-r));
    return r;
}

static int import(struct work *work, void *ctx)
{
    struct importing im = {.options = ctx, .work = work};
    struct options *options = ctx;
    char cache_dir[PATH_MAX];
    struct store *store;
    int r = command_cache_dir(options, cache_dir);

    if (r == 0)
        r = open_source(options->args[0], options->create.size_bytes, &im.source);
    if (r < 0)
        return r;
    options->volume.cache_dir = cache_dir;
    r = command_open_store(options, options->args[1], &store);
    if (r == 0) {
        im.buf = aligned_alloc(BLOCK, PIECE_BYTES);
        r = im.buf ? make(&im, store) : -ENOMEM;
        free(im.buf);
        store_free(store);
    }
    close(im.source.fd);
    return r;
}

int command_import(struct options *options)
{
    if (command_check_url(options->args[1]) < 0)
        return EXIT_USAGE;
    if (strcmp(options->args[0], "-") == 0 && !options->create.size_bytes) {
        msg_error(0, "import: --size is missing: say how many bytes standard input has");
        return EXIT_USAGE;
    }
    if (!options->volume.cache_bytes)
        options->volume.cache_bytes = COPY_CACHE_BYTES;
    return command_exit(work_run(import, options));
}
