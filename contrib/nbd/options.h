/* The command line. One table (options.c) holds every option, what values it takes and its help. */
#ifndef NBD_OPTIONS_H
#define NBD_OPTIONS_H

#include "listen.h"

#include <stdbool.h>
#include <stdint.h>

struct options {
    const char *unix_path[LISTEN_MAX], *tcp[LISTEN_MAX];
    unsigned nunix, ntcp;
    bool single, use_stdin, read_only, debug, help, version;
    const char *tls_cert, *tls_key, *tls_ca;
    unsigned max_connections;
    const char *pid_file;
    const char *volumes, *mount_dir, *create_size, *mount_options;
    int64_t grace_ms;
    char *const *exports; /* what is no option */
    unsigned nexports;
};

/* 0, or -EINVAL with one line said. Strings point into `argv`, which is reordered. */
int options_parse(int argc, char **argv, struct options *ret_options);

/* For --help. */
void options_print(void);

#endif
