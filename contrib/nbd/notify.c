#include "notify.h"

#include "../../store/msg.h"
#include "../../store/scope.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

void notify_state(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    if (!path || (*path != '/' && *path != '@') ||
        format(addr.sun_path, sizeof addr.sun_path, "%s", path) < 0)
        return;
    if (*path == '@')
        addr.sun_path[0] = 0; /* an abstract address */
    scope_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr, len) < 0)
        msg_warn("the service manager at %s cannot be told %s: %s", path, state, strerror(errno));
}

int notify_pid_file(const char *path)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
    scope_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, text, (size_t)len) != len)
        return msg_error(-errno, "--pid-file %s: %s", path, strerror(errno));
    return 0;
}
