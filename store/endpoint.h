/* Where a bucket is: from endpoint, region and bucket name to the URL's parts. Pure, but for the
 * line it prints when something makes no sense. */
#ifndef S3VOL_ENDPOINT_H
#define S3VOL_ENDPOINT_H

#include "store.h"

struct endpoint {
    char text[512];   /* "https://s3.eu-central-1.amazonaws.com", for messages */
    char origin[600]; /* "https://host[:port]", the bucket in it if virtual-hosted */
    char host[600];   /* of `origin`: what the Host header says */
    char path[640];   /* before the key, without a slash at its end: "", "/bucket" */
};

/* `given` is "http[s]://HOST[:PORT][/PATH]", or "": Amazon's own in this region.
 *
 * ADDRESSING_AUTO puts the bucket into the host name at Amazon's if its name may be one there, and
 * into the path everywhere else: a private server rarely has the DNS names and certificates for it.
 * A bucket name with dots would not match Amazon's certificate. */
int endpoint_resolve(const char *given, const char *region, const char *bucket,
                     enum addressing addressing, struct endpoint *ret_endpoint);

#endif
