#!/bin/bash
# quick
# Help goes to stdout and ends with 0, complaints are one line on stderr and end with 2 or 1; mount(8)'s
# ways of calling are understood. Needs no mount.
. "$(dirname "$0")/lib/common.sh"

code() { # code WANTED ARGUMENTS OF s3vol…: leaves $T/out and $T/err
    local want=$1 rc=0
    shift
    timeout 20 s3vol "$@" >"$T/out" 2>"$T/err" </dev/null || rc=$?
    same $rc "$want" "exit code of s3vol $*"
}

for words in --help -h help; do
    code 0 $words
    [ -s "$T/out" ] && [ ! -s "$T/err" ] || fail "$words: not on stdout"
done
code 2
[ ! -s "$T/out" ] && grep -q '^usage' "$T/err" || fail "no words: not on stderr"
for command in $(s3vol --help | sed -n '/^usage/,/^A URL/s/^  \([a-z]*\) .*/\1/p'); do
    code 0 $command --help
    grep -q "^usage: s3vol $command" "$T/out" || fail "$command --help"
    mv "$T/out" "$T/help"
    code 0 help $command
    cmp "$T/out" "$T/help"
    # Nothing is wider than a terminal.
    [ "$(awk 'length > 80' "$T/help" | wc -l)" = 0 ] || fail "$command --help is too wide"
    code 2 $command --frobnicate
    same "$(wc -l <"$T/err")" 1 "lines that $command --frobnicate said"
done
code 2 help frobnicate
code 2 umount
code 2 flush a b
code 2 list s3://bucket/x@snapshot
code 0 mount --help --sync cache
code 0 mount -h -o sync=cache
code 2 create "$T/v" # --size is missing
grep -q -- --size "$T/err"

# What is refused makes nothing.
code 0 list "$T/nothing"
[ ! -s "$T/out" ] || fail "list found something"
code 1 delete "$T/nothing"
code 1 umount "$T/nothing"
[ ! -e "$T/nothing" ] && [ ! -e "$T/v" ] || fail "something was made"

# Nobody can be asked: not deleted.
s3vol create --size 1M "$T/v"
code 1 delete "$T/v"
grep -q -- --force "$T/err"
s3vol status "$T/v" >"$T/out"
grep -q '1.0 MiB' "$T/out"
code 0 delete --force "$T/v"

# As mount(8) calls it; -f there means: pretend.
ln -s "$(command -v s3vol)" "$T/mount.fuse.s3vol"
"$T/mount.fuse.s3vol" "$T/v" "$T" -sfnv -o rw,sync=cache
! mountpoint -q "$T" || fail "-f did mount"
refused "no-such-option" "$T/mount.fuse.s3vol" "$T/v" "$T" -o rw,no-such-option
refused "$T/nowhere" "$T/mount.fuse.s3vol" "$T/v" "$T/nowhere" -o rw -t fuse.s3vol
refused "$T/nowhere" s3vol "$T/v" "$T/nowhere" -o rw

# A secret has no way into the command line.
! s3vol mount --help | grep -qiE 'secret|password|access-key' || fail "an option takes a secret"
