/* What the headers of an answer say. Pure; the contract is in http.h. */
#include "http.h"

#include "scope.h"

#include <string.h>
#include <strings.h>

void http_answer_begin(struct http_answer *a, int status)
{
    a->status = status;
    a->content_length = -1;
    a->content_range[0] = a->date[0] = a->region[0] = '\0';
}

/* Copies the value of the header `name` if this line is one; "" for what does not fit: half a
 * number is another number. */
static bool header_value(const char *line, size_t len, const char *name, char *buf, size_t size)
{
    size_t n = strlen(name);

    if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
        return false;
    line += n + 1;
    len -= n + 1;
    while (len && (*line == ' ' || *line == '\t'))
        line++, len--;
    while (len && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
        len--;
    if (len >= size)
        len = 0;
    memcpy(buf, line, len);
    buf[len] = '\0';
    return true;
}

/* A number that is none, or too large, was not announced. */
static int64_t parse_length(const char *text)
{
    char *end;

    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    int64_t n = strtoll(text, &end, 10);
    return errno || *end ? -1 : n;
}

void http_answer_header(struct http_answer *a, const char *line, size_t len)
{
    char number[32];

    if (header_value(line, len, "Content-Length", number, sizeof number))
        a->content_length = parse_length(number);
    else if (!header_value(line, len, "Content-Range", a->content_range, sizeof a->content_range) &&
             !header_value(line, len, "Date", a->date, sizeof a->date))
        header_value(line, len, "x-amz-bucket-region", a->region, sizeof a->region);
}

void http_answer_free(struct http_answer *answer)
{
    free(answer->body);
    answer->body = NULL;
}
