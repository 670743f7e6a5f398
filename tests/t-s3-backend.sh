#!/bin/bash
# stores: s3d radosgw s3rver
# The S3 backend against each kind of server: ranges, conditions, long lists, odd names, mistakes.
. "$(dirname "$0")/lib/common.sh"

use_store
export S3VOL_TEST_ENDPOINT=$AWS_ENDPOINT_URL S3VOL_TEST_BUCKET=$S3_BUCKET
[ "$STORE" != s3rver ] || export S3VOL_TEST_WEAK=1
"$B/tests/unit/test_s3"
