#include "command.h"

#include "../store/msg.h"
#include "../store/scope.h"
#include "mount_helper.h"

#include <locale.h>
#include <string.h>

static int usage(void)
{
    command_print_all(stderr);
    return EXIT_USAGE;
}

static int run(const struct command *command, int argc, char *const *argv)
{
    struct options options;
    int code = EXIT_USAGE;

    options_init(&options);
    if (options_parse(argc, argv, command->bit, command->max_args, &options) == 0) {
        msg_set_debug(options.debug);
        if (options.help) {
            command_print(stdout, command);
            code = EXIT_OK;
        } else if (options.nargs < command->min_args) {
            msg_error(0, "%s: an argument is missing: s3vol %s %s", command->name, command->name,
                      command->synopsis);
        } else if (!command->url || command_check_url(options.args[0]) == 0) {
            code = command->run(&options);
        }
    }
    options_free(&options);
    return fflush(stdout) == 0 ? code : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    struct mount_helper helper;

    setlocale(LC_CTYPE, "");
    if (mount_helper_parse(argc, argv, &helper)) {
        int code = helper.code   ? helper.code
                   : helper.fake ? EXIT_OK
                                 : run(command_find("mount"), helper.argc, helper.argv);
        return code;
    }
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        puts("s3vol " S3VOL_VERSION);
        return EXIT_OK;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        command_print_all(stdout);
        return EXIT_OK;
    }
    if (argc < 2)
        return usage();
    const struct command *command = command_find(word);
    if (!command) {
        msg_error(0, "%s: there is no such command; see s3vol --help", word);
        return EXIT_USAGE;
    }
    return run(command, argc - 2, argv + 2);
}
