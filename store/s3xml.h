/*
 * S3's XML: the answers we read and the one request we write. Pure functions on buffers.
 *
 * What they read came from outside: -EBADMSG for anything that is not the document expected, that
 * is nested too deeply, or that has a document type (and so no entities of its own). Elements that
 * nobody asked for are skipped.
 *
 * Source: Amazon S3 API reference, ListObjectsV2, DeleteObjects, "Error responses".
 */
#ifndef S3VOL_S3XML_H
#define S3VOL_S3XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* <Error>: each field cut to fit, "" if missing. */
struct s3xml_error {
    char code[64];        /* "NoSuchKey" */
    char message[256];    /* for people */
    char region[64];      /* which the server wants */
    char endpoint[256];   /* where it redirects to */
    char server_time[40]; /* "2013-05-24T00:20:00Z" */
};
int s3xml_parse_error(const void *xml, size_t len, struct s3xml_error *ret_error);

/* <ListBucketResult>: called for each key with its size, and for each common prefix with size 0. A
 * negative return ends it and becomes the result. */
typedef int s3xml_item(void *ctx, const char *key, uint64_t size_bytes, bool is_prefix);
int s3xml_parse_list(const void *xml, size_t len, s3xml_item *item, void *ctx, bool *ret_more);

/* <DeleteResult>: how many keys could not be deleted, and why the first of them. A key that was not
 * there is no error. */
int s3xml_parse_delete(const void *xml, size_t len, size_t *ret_nerrors,
                       struct s3xml_error *ret_first);

/* Appends `text`, escaped, to the NUL-terminated string in `buf`; -ENAMETOOLONG if it does not fit,
 * -EINVAL if it has a character that XML cannot say. */
int s3xml_escape(const char *text, char *buf, size_t size_bytes);

#endif
