#include "command.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "../store/url.h"
#include "mountpoint.h"

#include <string.h>
#include <sys/stat.h>

/* clang-format off */
static const struct command table[] = {
    {"create", COMMAND_CREATE, "--size SIZE [OPTIONS] URL", "make a new, empty volume",
     "Makes a new volume. It takes no space until something is written to it. One that\n"
     "begins as another is made by clone, one of a disk image by import.",
     1, 1, true, command_create},
    {"mount", COMMAND_MOUNT, "[OPTIONS] URL[@SNAPSHOT] DIR", "make DIR/image appear, the volume as one file",
     "Mounts the volume: DIR/image is its content, as one file for losetup, a virtual\n"
     "machine or whatever takes a disk image. Goes to the background when the image\n"
     "can be used. A volume is written by one machine at a time: mounting it takes it\n"
     "from any other. A snapshot is mounted read-only, and with --read-only so is the\n"
     "volume as it is now: by any number of machines, whoever writes it.",
     2, 2, false, command_mount},
    {"umount", COMMAND_UMOUNT, "[OPTIONS] DIR", "save everything to the bucket and unmount",
     "Waits until all that was written is in the bucket, unmounts, and waits for the\n"
     "daemon to end. If something cannot be saved for now the volume stays mounted.",
     1, 1, false, command_umount},
    {"status", COMMAND_STATUS, "[OPTIONS] DIR|URL", "tell how a volume is",
     "Tells how the volume is that is mounted at DIR, or what the store has at URL.",
     1, 1, false, command_status},
    {"flush", COMMAND_FLUSH, "DIR", "wait until everything is in the bucket",
     "Waits until all that was written before is in the bucket, whatever --sync says.",
     1, 1, false, command_flush},
    {"gc", COMMAND_GC, "DIR", "reclaim the space of what was overwritten or discarded",
     "Reclaims all space in the bucket that it pays to reclaim, at once and without\n"
     "regard for the machine's other work; mounted volumes also do it by themselves,\n"
     "little by little. Read-only mounts elsewhere that do not follow may fail then.",
     1, 1, false, command_gc},
    {"defrag", COMMAND_DEFRAG, "[OPTIONS] DIR", "make reading in order take fewer requests",
     "Stores what is scattered over many objects again, together. Tells how many\n"
     "requests it took to read a GiB in order, and how many it takes now. The volume\n"
     "stays in use.",
     1, 1, false, command_defrag},
    {"resize", COMMAND_RESIZE, "[OPTIONS] DIR|URL SIZE", "make a volume larger, or smaller",
     "Makes the volume that is mounted at DIR larger while it is used: the image has\n"
     "the new size at once; `losetup -c` and the file system's tool (resize2fs,\n"
     "xfs_growfs) do the rest. By URL the volume must not be mounted: this takes it\n"
     "from any other machine. When it returns, the new size is in the bucket. To make\n"
     "a volume smaller, shrink what is in it first.",
     2, 2, false, command_resize},
    {"import", COMMAND_IMPORT, "[OPTIONS] FILE URL", "make a new volume of a disk image",
     "Makes a new volume of FILE, a raw disk image or a block device, and uploads what\n"
     "is in it; holes and zeros take no space. FILE may be - for standard input, with\n"
     "--size. When it returns, everything is in the bucket. Nobody can mount the\n"
     "volume before that; of an import that failed or was stopped nothing is left, and\n"
     "one that was killed is begun anew by the same command.",
     2, 2, false, command_import},
    {"export", COMMAND_EXPORT, "[OPTIONS] URL[@SNAPSHOT] FILE", "write a volume, or a snapshot, to a file",
     "Writes the volume as it is in the bucket now, or as its snapshot is, to FILE, a\n"
     "new and sparse one, which is there when it is complete and on the disk. FILE may\n"
     "be a block device, with --force, or - for standard output. Takes the volume from\n"
     "nobody; of one that is being written, export a snapshot, or what is reclaimed\n"
     "meanwhile is missing after the writer's --gc-grace, and the export fails.",
     2, 2, false, command_export},
    {"list", COMMAND_LIST, "[OPTIONS] URL", "list the volumes below a URL",
     "Lists the names and sizes of the volumes directly below URL.",
     1, 1, true, command_list},
    {"delete", COMMAND_DELETE, "[OPTIONS] URL", "delete a volume for good",
     "Deletes the volume and all that it has in the store. This cannot be undone.",
     1, 1, true, command_delete},
    {"check", COMMAND_CHECK, "[OPTIONS] URL", "verify everything, say what is wrong",
     "Reads all that the volume has in the store and verifies it, with its snapshots\n"
     "and what a clone shares with what it was made from. A volume that cannot be\n"
     "mounted any more goes back, with --repair, to the newest instant that can be\n"
     "read. What came after that is given up; damaged blocks stay I/O errors.",
     1, 1, true, command_check},
    {"snapshot", COMMAND_SNAPSHOT, "create|list|delete|rollback [OPTIONS] URL|DIR[@NAME]",
     "keep the volume as it is now, under a name",
     "create URL@NAME keeps the volume as it is now, in an instant, whatever its size.\n"
     "With DIR, where it is mounted, in place of the URL what was written is flushed\n"
     "first. list URL tells what there is, and what each one alone holds. delete\n"
     "URL@NAME gives one up. rollback URL@NAME makes the volume what it was, and keeps\n"
     "the present as another snapshot.",
     2, 2, false, command_snapshot},
    {"clone", COMMAND_CLONE, "[OPTIONS] URL[@SNAPSHOT] NEWURL",
     "make a new volume that begins as another",
     "Makes a volume that begins as URL is now, or as its snapshot is, in an instant:\n"
     "they share what is stored, and each goes its own way from there. With --local it\n"
     "is what this machine's cache makes of URL, after others have mounted that: what\n"
     "differs is copied. The cache stays as it is, until mount --discard-local.",
     2, 2, false, command_clone},
    {"flatten", COMMAND_FLATTEN, "[OPTIONS] DIR|URL", "make a clone depend on nothing else",
     "Copies what a clone still shares with what it was made from, so that this can be\n"
     "deleted. A clone that is mounted at DIR stays in use; by URL it must not be\n"
     "mounted: this takes it from any other machine. Refused while a snapshot of the\n"
     "clone needs what it shares. Interrupted, it goes on where it was.",
     1, 1, false, command_flatten},
    {"help", COMMAND_HELP, "[COMMAND]", "this list, or what a command does",
     "Tells what the commands are, or what one of them does.",
     0, 1, false, command_help},
};
/* clang-format on */

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

void command_print_all(FILE *out)
{
    fputs("s3vol: disks whose content lives in an S3 bucket (or in a directory), as image files\n"
          "\nusage: s3vol COMMAND [OPTIONS] ...\n\n",
          out);
    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        fprintf(out, "  %-8s %s\n", table[i].name, table[i].summary);
    fputs("\n"
          "A URL is s3://BUCKET/PREFIX/NAME, file:///DIR/NAME or a plain path. Keys and\n"
          "region are those of AWS_* variables, ~/.aws/credentials and ~/.aws/config (no\n"
          "instance roles, role_arn, SSO, credential_process). Sizes take K, M, G, T.\n"
          "\n"
          "s3vol COMMAND --help tells more; s3vol --version tells the version.\n"
          "\n"
          "  s3vol create --size 10G s3://bucket/vm1\n"
          "  s3vol mount s3://bucket/vm1 /mnt/vm1\n"
          "  losetup --find --show --direct-io=on /mnt/vm1/image\n"
          "  s3vol umount /mnt/vm1\n",
          out);
}

void command_print(FILE *out, const struct command *command)
{
    fprintf(out, "usage: s3vol %s %s\n\n%s\n\n", command->name, command->synopsis, command->text);
    options_print(out, command->bit);
}

int command_help(struct options *options)
{
    if (!options->nargs) {
        command_print_all(stdout);
        return EXIT_OK;
    }
    const struct command *command = command_find(options->args[0]);
    if (!command) {
        msg_error(0, "%s: there is no such command; see s3vol --help", options->args[0]);
        return EXIT_USAGE;
    }
    command_print(stdout, command);
    return EXIT_OK;
}

int command_exit(int err)
{
    return err < 0 ? EXIT_FAILED : EXIT_OK;
}

int command_check_url(const char *text)
{
    struct url url;
    int r = url_parse(text, &url);

    if (r == 0 && *url.snapshot)
        r = msg_error(-EINVAL, "%s: a snapshot cannot be used here", text);
    return r;
}

int command_open_store(const struct options *options, const char *url, struct store **ret_store)
{
    int r = command_check_url(url);

    return r < 0 ? r : store_open(&options->store, url, ret_store);
}

/* Makes `dir` and what is above it, private where it is new. */
static int make_dirs(char *dir)
{
    for (char *p = dir + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char c = *p;
        *p = 0;
        struct stat st;
        int r = mkdir(dir, 0700) < 0 && errno != EEXIST ? -errno : 0;
        if (r == 0 && stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
            r = -ENOTDIR;
        if (r < 0)
            msg_error(r, "%s: cannot make the cache directory: %s; choose one with --cache-dir",
                      dir, strerror(-r));
        *p = c;
        if (r < 0 || !c)
            return r;
    }
}

int command_cache_dir(const struct options *options, char ret_dir[PATH_MAX])
{
    const char *dir = options->volume.cache_dir, *home = getenv("HOME"), *base;
    char here[PATH_MAX];
    int r;

    if (!dir)
        dir = getenv("S3VOL_CACHE_DIR");
    if (dir && *dir == '/')
        r = format(ret_dir, PATH_MAX, "%s", dir);
    else if (dir && *dir)
        r = getcwd(here, sizeof here) ? format(ret_dir, PATH_MAX, "%s/%s", here, dir) : -errno;
    else if (geteuid() == 0)
        r = format(ret_dir, PATH_MAX, "/var/cache/s3vol");
    else if ((base = getenv("XDG_CACHE_HOME")) && *base == '/')
        r = format(ret_dir, PATH_MAX, "%s/s3vol", base);
    else if (home && *home == '/')
        r = format(ret_dir, PATH_MAX, "%s/.cache/s3vol", home);
    else
        return msg_error(-ENOENT, "there is no $HOME; say --cache-dir");
    if (r < 0)
        return msg_error(r, "the path of the cache directory is too long");
    return make_dirs(ret_dir);
}

int command_attach(struct options *options, struct store **ret_store, struct volume **ret_volume)
{
    static char cache_dir[PATH_MAX]; /* the volume borrows it */
    char path[PATH_MAX];
    struct store *store;
    int r = command_open_store(options, options->args[0], &store);

    if (r < 0)
        return r;
    if (mountpoint_of(store_url(store), path))
        r = msg_error(-EBUSY, "%s: is mounted at %s; name %s instead", store_url(store), path,
                      path);
    if (r == 0)
        r = command_cache_dir(options, cache_dir);
    options->volume.cache_dir = cache_dir;
    if (r == 0)
        r = volume_open(store, &options->volume, ret_volume);
    if (r < 0)
        store_free(store);
    else
        *ret_store = store;
    return r;
}
