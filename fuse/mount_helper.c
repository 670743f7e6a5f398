#include "mount_helper.h"

#include "../store/msg.h"
#include "../store/scope.h"

#include <string.h>

static char mount_option[] = "-o", read_only[] = "ro";

static bool is_helper_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

    return strcmp(name, "mount.fuse.s3vol") == 0 || strcmp(name, "mount.s3vol") == 0;
}

/* "s3vol s3://b/v /mnt -o …": what mount.fuse(8) makes of an fstab line. No command has a slash. */
static bool is_direct_call(int argc, char *const *argv)
{
    return argc >= 3 && strchr(argv[1], '/') && argv[1][0] != '-';
}

static int bad_call(struct mount_helper *helper)
{
    msg_error(0, "mount: call it as SOURCE DIR [-sfnv] [-t TYPE] [-o OPTIONS]");
    helper->code = 2;
    return 0;
}

static int add(struct mount_helper *helper, char *word)
{
    if (helper->argc == MOUNT_HELPER_ARGS_MAX)
        return bad_call(helper);
    helper->argv[helper->argc++] = word;
    return 0;
}

/* "-sfnv" in any combination. */
static int take_letters(struct mount_helper *helper, const char *word)
{
    for (const char *p = word + 1; *p; p++)
        if (*p == 'f')
            helper->fake = true;
        else if (*p == 'r')
            add(helper, mount_option), add(helper, read_only);
        else if (!strchr("snv", *p))
            return bad_call(helper);
    return 0;
}

bool mount_helper_parse(int argc, char *const *argv, struct mount_helper *ret_helper)
{
    struct mount_helper *h = ret_helper;

    if (argc < 1 || !(is_helper_name(argv[0]) || is_direct_call(argc, argv)))
        return false;
    *h = (struct mount_helper){0};
    for (int i = 1; i < argc && !h->code; i++) {
        char *word = argv[i];
        bool has_value = word[0] == '-' && word[1] && strchr("oNt", word[1]);
        char *value = has_value && word[2]        ? word + 2
                      : has_value && i + 1 < argc ? argv[++i]
                                                  : NULL;

        if (has_value && !value) {
            bad_call(h);
        } else if (has_value && word[1] == 'o') {
            add(h, mount_option);
            add(h, value);
        } else if (has_value) {
            continue; /* namespace and type */
        } else if (word[0] == '-' && word[1] == '-') {
            add(h, word); /* --help */
        } else if (word[0] == '-') {
            take_letters(h, word);
        } else {
            add(h, word);
        }
    }
    return true;
}
