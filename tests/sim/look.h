/* Reads a volume as of one instant, whole, at one moment: nothing fails, no time passes but for
 * that of the threads which read. */
#ifndef SIM_LOOK_H
#define SIM_LOOK_H

#include <stdint.h>

/* As of the checkpoint `root` and the log up to `seq`: the generations of its sectors (of
 * SECTORS_MAX), and how many there are. Negative: something that it needs is missing, and was
 * reported. Ends the simulation if there are bytes that nobody wrote there. */
int look(int volume, uint64_t root, uint64_t seq, uint32_t *found, uint32_t *ret_sectors);

#endif
