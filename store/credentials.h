/*
 * Who we are and where S3 is, from where every AWS tool takes them: what the user said explicitly,
 * then the environment, then the shared credentials and config files. Precedence is the AWS CLI's;
 * a profile that was named explicitly goes before keys in the environment.
 *
 *   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION,
 *   AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_CA_BUNDLE, AWS_CONFIG_FILE,
 *   AWS_SHARED_CREDENTIALS_FILE; in a profile: aws_access_key_id, aws_secret_access_key,
 *   aws_session_token, region, endpoint_url, services, ca_bundle, s3/addressing_style.
 *
 * A relative path is one below the working directory when opened, wherever that is later.
 *
 * The environment is read once, when opened; keys from a file are read again whenever the file has
 * changed, so that they can be renewed while a volume is mounted. Profiles that need another
 * service to get their keys (role_arn, sso, credential_process) are refused with a message.
 */
#ifndef S3VOL_CREDENTIALS_H
#define S3VOL_CREDENTIALS_H

#include "store.h"

struct credentials {
    char access_key[129];
    char secret[257];
    char token[4097]; /* "": none */
};
/* Overwrites the secrets; call it on every copy. */
void credentials_wipe(struct credentials *credentials);

/* The rest of what those places say. "" where nobody said anything. */
struct credentials_settings {
    char region[64];
    char endpoint[512];
    char ca_file[1024];
    enum addressing addressing;
};

struct credentials_source;

/* Fails with one line printed: -EACCES if there are no credentials, -EINVAL for settings that make
 * no sense. */
int credentials_open(const struct store_config *config, struct credentials_settings *ret_settings,
                     struct credentials_source **ret_source);
void credentials_free(struct credentials_source *source);

/* The credentials as they are now. From any thread. If a file can no longer be read, what it said
 * last still counts. */
void credentials_get(struct credentials_source *source, struct credentials *ret_credentials);

/* The server refused them: looks again at the next credentials_get(), changed file or not. */
void credentials_refused(struct credentials_source *source);

/* For messages: "the environment", "profile 'x' in /home/u/.aws/credentials". */
const char *credentials_origin(const struct credentials_source *source);

#endif
