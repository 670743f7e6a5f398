#include "scope.h"

void invariant_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "s3vol: bug: %s:%d: not true: %s\n", file, line, what);
    abort();
}

int vformat(char *buf, size_t size_bytes, const char *fmt, va_list ap)
{
    int n = vsnprintf(buf, size_bytes, fmt, ap);

    return n < 0 || (size_t)n >= size_bytes ? -ENAMETOOLONG : 0;
}

int format(char *buf, size_t size_bytes, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int r = vformat(buf, size_bytes, fmt, ap);
    va_end(ap);
    return r;
}
