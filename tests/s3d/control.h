/* The control path of the server, /_control: faults on command, the journal. Not signed. */
#ifndef S3D_CONTROL_H
#define S3D_CONTROL_H

#include "conn.h"

/* The path is the control path's. */
bool control_wants(const struct request *request);

/* `latency_ms` and `bandwidth` are what a reset goes back to. */
void control_do(const struct request *request, uint64_t latency_ms, uint64_t bandwidth,
                struct answer *answer);

#endif
