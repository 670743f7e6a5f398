#!/bin/bash
# Keys, session token, region and endpoint from the environment, from profiles in the shared files, and
# from options; what is said later wins.
. "$(dirname "$0")/lib/common.sh"

STORE=s3d
need_root
start_s3d --token "token/with+signs=" --region eu-south-3
endpoint=$AWS_ENDPOINT_URL
URL=s3://$S3_BUCKET/a/b/vm1
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_ENDPOINT_URL AWS_REGION
mkdir "$T/home" "$T/home/.aws"
export HOME=$T/home
cat >"$HOME/.aws/credentials" <<EOF
[default]
aws_access_key_id = nobody
aws_secret_access_key = wrong
# a comment
[vm]
aws_access_key_id=test
aws_secret_access_key = testsecret
aws_session_token = token/with+signs=
EOF
cat >"$HOME/.aws/config" <<EOF
[default]
region = us-east-1
endpoint_url = $endpoint
[profile vm]
region = eu-south-3
endpoint_url = $endpoint
EOF
refused 'key' s3vol create --size 64M "$URL"
s3vol create --profile vm --size 64M "$URL"
AWS_PROFILE=vm s3vol check "$URL"
AWS_PROFILE=default s3vol check --profile vm "$URL"
mv "$HOME/.aws/credentials" "$T/keys"
AWS_SHARED_CREDENTIALS_FILE=$T/keys AWS_PROFILE=vm s3vol check "$URL"
rm -r "$HOME/.aws"
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=testsecret AWS_SESSION_TOKEN="token/with+signs="
s3vol check --endpoint "$endpoint" --region eu-south-3 "$URL"
AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_ENDPOINT_URL_S3=$endpoint AWS_DEFAULT_REGION=eu-south-3 s3vol check "$URL"
refused 'token' env AWS_SESSION_TOKEN=old s3vol check --endpoint "$endpoint" --region eu-south-3 "$URL"
AWS_ENDPOINT_URL=$endpoint AWS_REGION=eu-south-3 mount_volume
tool fill "$IMAGE" 0 1M 1
umount_volume
