#include "run.h"

#include "../../store/scope.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

/* The command's path beside this program, if it is there. */
static const char *beside(const char *command, char *buf, size_t size_bytes)
{
    ssize_t n = readlink("/proc/self/exe", buf, size_bytes - 1);

    if (n <= 0)
        return command;
    buf[n] = 0;
    char *slash = strrchr(buf, '/');
    size_t room = size_bytes - (size_t)(slash + 1 - buf);
    if (format(slash + 1, room, "%s", command) < 0 || access(buf, X_OK) < 0)
        return command;
    return buf;
}

static int spawn(char *const argv[], int output, pid_t *ret_pid)
{
    char buf[4096];
    posix_spawnattr_t attr;
    posix_spawn_file_actions_t actions;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_adddup2(&actions, output, 2);
    int err =
        posix_spawnp(ret_pid, beside(argv[0], buf, sizeof buf), &actions, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return -err;
}

static void read_all(int fd, char *said, size_t size_bytes)
{
    size_t len = 0;
    char piece[512];

    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        size_t room = MIN((size_t)n, size_bytes - 1 - len);
        memcpy(said + len, piece, room);
        len += room;
    }
    while (len && said[len - 1] == '\n')
        len--;
    said[len] = 0;
}

int run_command(char *const argv[], char *said, size_t size_bytes)
{
    int fds[2], status;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    int r = spawn(argv, fds[1], &pid);
    close(fds[1]);
    if (r < 0) {
        (void)snprintf(said, size_bytes, "%s", strerror(-r));
        close(fds[0]);
        return r;
    }
    read_all(fds[0], said, size_bytes);
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}
