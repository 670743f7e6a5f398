/* The clients of one attachment: they write, clear, read, flush, and change the size, each on
 * sectors of its own. */
#ifndef SIM_CLIENTS_H
#define SIM_CLIENTS_H

#include "life.h"

/* Until they have done what the life asks for, or it fails. */
void clients_work(struct life *l);

#endif
