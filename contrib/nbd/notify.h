/* How others learn that the server is ready, and who it is. */
#ifndef NBD_NOTIFY_H
#define NBD_NOTIFY_H

/* sd_notify(3): "READY=1", "STOPPING=1". Nothing without a service manager. */
void notify_state(const char *state);

/* Writes the process id to the file; says what is wrong. The directory must exist. */
int notify_pid_file(const char *path);

#endif
