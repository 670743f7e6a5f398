#!/bin/bash
# stores: dir s3d radosgw s3rver
# quick
# create, list, mount, status, flush, check, umount, delete, help and version say what people expect.
. "$(dirname "$0")/lib/common.sh"

s3vol --version | grep -qE '^s3vol [0-9]+\.[0-9]+' || fail "--version"
s3vol --help >"$T/help"
for command in create mount umount status flush resize import export list delete check; do
    grep -qw $command "$T/help" || fail "--help does not know $command"
    s3vol "$command" --help >"$T/help-of" # not into a pipe that grep -q closes early
    grep -q "s3vol $command" "$T/help-of" || fail "$command --help"
done
new_volume
s3vol create --size 2G "${URL%1}2"
s3vol list "${URL%/*}" >"$T/list"
grep -qw vm1 "$T/list" && grep -qw vm2 "$T/list" || fail "list: $(cat "$T/list")"

mount_volume
tool fill "$IMAGE" 0 1M 1
s3vol flush "$MNT"
same "$(status dirty_bytes)" 0 "dirty bytes after flush"
s3vol status "$MNT" >"$T/status"
grep -q "$(status uuid)" "$T/status" || fail "status: $(cat "$T/status")"
for key in url uuid state sync epoch size_bytes allocated_bytes cached_bytes dirty_bytes uploading_bytes \
    stored_bytes live_bytes hits misses cache_errors requests.get requests.put requests.head requests.list \
    requests.delete requests.failed requests.retried bytes_up bytes_down commits last_commit_age_s last_error; do
    s3vol status --json "$MNT" | jq -e "getpath(\"$key\" | split(\".\")) as \$x | [paths] | index([\"$key\" | split(\".\")]) != null" \
        >/dev/null || fail "status --json has no $key"
done
same "$(status url)" "$URL" url
same "$(status size_bytes)" $((1 << 30)) size_bytes
uuid=$(status uuid)
umount_volume
same "$(s3vol status --json "$URL" | jq -r .uuid)" "$uuid" "uuid that status URL says"
s3vol check "$URL"
s3vol delete --force "$URL"
s3vol list "${URL%/*}" >"$T/list"
! grep -qw vm1 "$T/list" || fail "vm1 is still listed"
refused "no volume|not exist|create" s3vol mount --cache-dir "$CACHE" "$URL" "$MNT"
s3vol check "${URL%1}2"
s3vol delete --force "${URL%1}2"
if [ "$STORE" = dir ]; then
    same "$(find "$T/bucket" -type f | wc -l)" 0 "files that delete left"
fi
