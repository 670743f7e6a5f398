#include "ini.h"

#include "scope.h"

#include <string.h>

/* A piece of the text, not NUL-terminated. */
struct span {
    const char *at;
    size_t len;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct span trim(struct span s)
{
    while (s.len && is_space(*s.at))
        s.at++, s.len--;
    while (s.len && is_space(s.at[s.len - 1]))
        s.len--;
    return s;
}

/* Takes the next line off the front. */
static bool next_line(struct span *text, struct span *ret_line)
{
    const char *end;

    if (!text->len)
        return false;
    end = memchr(text->at, '\n', text->len);
    ret_line->at = text->at;
    ret_line->len = end ? (size_t)(end - text->at) : text->len;
    text->at += ret_line->len + (end != NULL);
    text->len -= ret_line->len + (end != NULL);
    return true;
}

static bool equals(struct span s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

/* "profile  x" is the same as "profile x". */
static bool same_section(struct span s, const char *name)
{
    while (s.len && *name) {
        if (is_space(*s.at) && *name == ' ') {
            while (s.len && is_space(*s.at))
                s.at++, s.len--;
            name++;
        } else if (*s.at == *name) {
            s.at++, s.len--, name++;
        } else {
            return false;
        }
    }
    return !s.len && !*name;
}

/* Is this line "[…]"? What follows the bracket is a comment. */
static bool section_line(struct span line, struct span *ret_name)
{
    const char *end;

    line = trim(line);
    if (!line.len || *line.at != '[' || !(end = memchr(line.at, ']', line.len)))
        return false;
    *ret_name = trim((struct span){line.at + 1, (size_t)(end - line.at) - 1});
    return true;
}

static bool setting_line(struct span line, struct span *ret_key, struct span *ret_value)
{
    const char *equal = memchr(line.at, '=', line.len);

    if (!equal)
        return false;
    *ret_key = trim((struct span){line.at, (size_t)(equal - line.at)});
    *ret_value = trim((struct span){equal + 1, line.len - (size_t)(equal - line.at) - 1});
    return ret_key->len > 0;
}

static size_t indent(struct span line)
{
    size_t n = 0;

    while (n < line.len && (line.at[n] == ' ' || line.at[n] == '\t'))
        n++;
    return n;
}

static bool blank_or_comment(struct span line)
{
    line = trim(line);
    return !line.len || *line.at == '#' || *line.at == ';';
}

/* The last line that sets key (sub NULL) or key/sub in the section; .at NULL if there is none. */
static struct span find(struct span text, const char *section, const char *key, const char *sub)
{
    struct span line, name, value, parent = {0}, found = {0};
    size_t parent_indent = 0;
    bool inside = false, parent_empty = false;

    while (next_line(&text, &line)) {
        if (blank_or_comment(line))
            continue;
        if (section_line(line, &name)) {
            inside = same_section(name, section);
            parent = (struct span){0};
            continue;
        }
        bool nested = parent.at && indent(line) > parent_indent;
        if (!inside || !setting_line(line, &name, &value))
            continue;
        if (nested) { /* below a key with a value it would be that value's next line */
            if (sub && parent_empty && equals(parent, key) && equals(name, sub))
                found = value;
            continue;
        }
        parent = name;
        parent_indent = indent(line);
        parent_empty = !value.len;
        if (!sub && equals(name, key))
            found = value;
    }
    return found;
}

static bool has_control_character(struct span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.at[i] < ' ' && s.at[i] != '\t') || s.at[i] == 0x7f)
            return true;
    return false;
}

int ini_find(const char *text, size_t len, const char *section, const char *key, const char *sub,
             char *ret_value, size_t size_bytes)
{
    struct span value = find((struct span){text, len}, section, key, sub);

    if (!value.len || has_control_character(value))
        return -ENOENT;
    if (value.len >= size_bytes)
        return -ENAMETOOLONG;
    memcpy(ret_value, value.at, value.len);
    ret_value[value.len] = '\0';
    return 0;
}

bool ini_has_section(const char *text, size_t len, const char *section)
{
    struct span rest = {text, len}, line, name;

    while (next_line(&rest, &line))
        if (!blank_or_comment(line) && section_line(line, &name) && same_section(name, section))
            return true;
    return false;
}
