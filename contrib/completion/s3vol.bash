# Completion of s3vol for bash. What there is to complete comes from `s3vol --help` and `s3vol COMMAND
# --help`, so that it is always that of the installed version.
# shellcheck shell=bash

# The commands.
_s3vol_commands() {
    "$1" --help 2>/dev/null | sed -n '/^usage/,/^A URL/s/^  \([a-z]*\) .*/\1/p'
}

# The options of a command, "--[no-]x" as two.
_s3vol_options() {
    "$1" "$2" --help 2>/dev/null | sed -n 's/^ *\(-.,\)\{0,1\} *\(--[][a-z-]*\).*/\2/p' |
        sed 's/\(.*\)\[no-\]\(.*\)/\1\2\n\1no-\2/'
}

# What may follow an option: "A|B|C", or a word in capitals.
_s3vol_argument() {
    "$1" "$2" --help 2>/dev/null | sed -n "s/^ *\(-.,\)\{0,1\} *$3 \([^ ]*\).*/\2/p"
}

_s3vol() {
    local program=$1 cur=$2 prev=$3 command=${COMP_WORDS[1]} argument

    COMPREPLY=()
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_s3vol_commands "$program") --help --version" -- "$cur")
        return
    fi
    case $prev in
    --*) argument=$(_s3vol_argument "$program" "$command" "$prev") ;;
    esac
    case $argument in
    *'|'*)
        mapfile -t COMPREPLY < <(compgen -W "${argument//|/ }" -- "$cur")
        return
        ;;
    DIR) compopt -o dirnames && return ;;
    FILE) compopt -o default && return ;;
    ?*) return ;;
    esac
    case $command,$cur in
    *,-*) mapfile -t COMPREPLY < <(compgen -W "$(_s3vol_options "$program" "$command")" -- "$cur") ;;
    import,* | export,*) compopt -o default ;;
    help,*) mapfile -t COMPREPLY < <(compgen -W "$(_s3vol_commands "$program")" -- "$cur") ;;
    *) compopt -o dirnames ;;
    esac
}

complete -F _s3vol s3vol
