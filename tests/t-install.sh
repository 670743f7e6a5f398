#!/bin/bash
# make install puts everything where it belongs, each option is in the man page, completion completes,
# and make uninstall takes it all away.
. "$(dirname "$0")/lib/common.sh"

root=$T/root
make -s -C "$TOP" install B="$B" DESTDIR="$root" PREFIX=/usr
"$root/usr/bin/s3vol" --version
same "$(readlink "$root/sbin/mount.fuse.s3vol")" /usr/bin/s3vol "the mount helper"
for command in $(s3vol --help | sed -n '/^usage/,/^A URL/s/^  \([a-z]*\) .*/\1/p'); do
    grep -q "^\.Cm $command" "$root/usr/share/man/man1/s3vol.1" || fail "the man page has no synopsis of $command"
    for option in $(s3vol $command --help | grep -oE '^ +(-., )?--[][a-z-]+' | grep -oE '[-][-][][a-z-]+' | sed 's/\[no-\]//'); do
        grep -qF -- "Fl ${option#-}" "$root/usr/share/man/man1/s3vol.1" || fail "the man page does not have $option of $command"
    done
done
for option in $(s3vol-nbd --help | grep -oE '^ +(-., )?--[a-z-]+' | grep -oE '[-][-][a-z-]+'); do
    grep -qF -- "Fl ${option#-}" "$root/usr/share/man/man1/s3vol-nbd.1" || fail "the man page does not have $option of s3vol-nbd"
done
"$root/usr/bin/s3vol-nbd" --version
! ldd "$root/usr/bin/s3vol-nbd" | grep -E 'curl|fuse|sqlite|expat|zstd' || fail "s3vol-nbd needs too much"
completions=$(bash -c '. "$1"; COMP_WORDS=(s3vol mo) COMP_CWORD=1 COMP_LINE="s3vol mo" COMP_POINT=8
    "$(complete -p s3vol | grep -oE -- "-F [^ ]+" | cut -c4-)" s3vol mo s3vol; echo "${COMPREPLY[@]}"' \
    - "$root/usr/share/bash-completion/completions/s3vol")
same "$(echo $completions)" mount "completion of 's3vol mo'"
unit=$root/usr/lib/systemd/system/s3vol@.service
grep -q 'ExecStart=/usr/bin/s3vol mount' "$unit" && ! grep -q @PREFIX@ "$unit" || fail "the systemd unit: $(cat "$unit")"
unit=$root/usr/lib/systemd/system/s3vol-nbd.service
grep -q 'ExecStart=/usr/bin/s3vol-nbd' "$unit" && ! grep -q @PREFIX@ "$unit" && [ -s "${unit%service}socket" ] ||
    fail "the systemd units of s3vol-nbd"
make -s -C "$TOP" uninstall B="$B" DESTDIR="$root" PREFIX=/usr
same "$(find "$root" ! -type d | wc -l)" 0 "files that uninstall left"
