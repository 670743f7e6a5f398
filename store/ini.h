/*
 * The format of AWS's shared config and credentials files: "[section]" lines, "key = value" lines,
 * and settings nested one level below a key without a value:
 *
 *     [profile work]
 *     region = eu-central-1
 *     s3 =
 *         addressing_style = path
 *
 * Pure. Lines that begin with '#' or ';' are comments; white space around names and values, and
 * within a section's name, does not matter; what makes no sense is skipped, as the AWS CLI does,
 * and so are values with control characters: they go into the headers of requests.
 */
#ifndef S3VOL_INI_H
#define S3VOL_INI_H

#include <stdbool.h>
#include <stddef.h>

/* Finds the value of `key`, or of `sub` nested below it (NULL: not nested), in the section of this
 * name; the last one counts. 0; -ENOENT if there is none or it is empty; -ENAMETOOLONG. */
int ini_find(const char *text, size_t len, const char *section, const char *key, const char *sub,
             char *ret_value, size_t size_bytes);

bool ini_has_section(const char *text, size_t len, const char *section);

#endif
