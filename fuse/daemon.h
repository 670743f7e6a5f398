/* What makes a process fit to stand below a file system: it must go on when memory is short, since
 * memory may be waiting for it. */
#ifndef S3VOL_DAEMON_H
#define S3VOL_DAEMON_H

/* Before the first thread: small stacks, a heap that does not give its memory back, writes that are
 * not held up by the dirty pages of others, low on the list of the out-of-memory killer. What is
 * not allowed is left out. */
void daemon_prepare(void);

/* When all threads and buffers exist: touches a reserve of memory, and keeps what has been touched.
 */
void daemon_lock_memory(void);

/* Leaves the terminal: a session of its own, no working directory, messages to syslog. */
void daemon_background(void);

#endif
