/* What S3 does with a request that may pass. */
#ifndef S3D_API_H
#define S3D_API_H

#include "conn.h"

#include <stdio.h>

struct api_config {
    const char *domain; /* Host "BUCKET.DOMAIN" is virtual-hosted addressing */
    const char *region;
    bool conditional_put; /* otherwise If-None-Match is ignored */
};

/* What a request is about: "" where there is none. */
struct target {
    char bucket[BUCKET_NAME_MAX + 1], key[OBJECT_KEY_MAX + 1];
    char name[BUCKET_NAME_MAX + OBJECT_KEY_MAX + 2]; /* BUCKET/KEY, of a list BUCKET/PREFIX */
    const char *op;                                  /* the method, or "LIST" */
};

/* False for a path that names neither. */
bool api_target(const struct api_config *config, const struct request *request,
                struct target *ret_target);

/* `hash` is the SHA-256 of the body, which a PUT takes over; `partial_code` the code for the last
 * key of a batch delete that is to be refused, or NULL. */
void api_do(const struct api_config *config, struct request *request, const struct target *target,
            const char *hash, const char *partial_code, struct answer *answer);

/* Fills the answer with an error document; `detail` is more XML, or "". */
void api_error(struct answer *answer, int status, const char *code, const char *message,
               const char *resource, const char *detail);

/* Decoded; false if the query has no such parameter, or one that does not fit. */
bool api_query(const struct request *request, const char *name, char *buf, size_t size_bytes);

/* An XML document as the answer's body: print into what api_xml() returns, end with
 * api_xml_end(). */
FILE *api_xml(struct answer *answer, size_t *len);
void api_xml_end(struct answer *answer, FILE *xml, const size_t *len);
void api_xml_escaped(FILE *xml, const char *text);

/* GET /BUCKET?list-type=2 (list.c) and POST /BUCKET?delete (batch.c). */
void list_objects(const struct request *request, const char *bucket, struct answer *answer);
void batch_delete(const struct request *request, const char *bucket, const char *partial_code,
                  struct answer *answer);

#endif
