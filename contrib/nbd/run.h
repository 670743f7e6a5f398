/* Runs a command. */
#ifndef NBD_RUN_H
#define NBD_RUN_H

#include <stddef.h>

/* Runs `argv`, found in the directory of this program or else in PATH, with default signals and no
 * input, and waits for it. What it says, on one or both outputs, up to its end or until it closes
 * them, is in `said`, without the newline, cut to fit. 0 when it exits 0, -EIO when otherwise, or a
 * negative errno when it cannot be run. */
int run_command(char *const argv[], char *said, size_t size_bytes);

#endif
