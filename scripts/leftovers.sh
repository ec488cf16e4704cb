#!/usr/bin/env bash
# Finds what a test run left on this machine.
#
#   scripts/leftovers.sh begin         makes a folder for the run's temporary files; prints its path
#   scripts/leftovers.sh end FOLDER    removes it; prints what was left and fails if there was any
#
# In between, the run must have TMPDIR=FOLDER and SANDBOX_TEST_RUN=FOLDER in its environment. By
# these its processes, files and loop devices are told from those of anything else that runs here;
# mounts are compared with those that were there before.
set -euo pipefail
export LC_ALL=C

# What a run may still be ending when its last test returns: a destroy has ten seconds.
PATIENCE_SEC=10

mounts() { cut -d ' ' -f 5 /proc/self/mountinfo | sort; }

# One line for each process that carries the run's mark, or works in its folder.
processes() {
    local process name
    for process in /proc/[0-9]*; do
        [ "${process#/proc/}" != $$ ] || continue
        if [[ $(readlink "$process/cwd" 2>/dev/null) == "$folder"* ]] ||
            grep -qzxF "SANDBOX_TEST_RUN=$folder" "$process/environ" 2>/dev/null; then
            name=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null | cut -c 1-150) || continue
            # A zombie has no command line, and holds nothing.
            [ -z "$name" ] || printf 'process %s: %s\n' "${process#/proc/}" "$name"
        fi
    done
}

loop_devices() {
    local file backing
    for file in /sys/block/loop*/loop/backing_file; do
        backing=$(cat "$file" 2>/dev/null) || continue
        if [[ $backing == "$folder"* ]]; then
            file=${file#/sys/block/}
            printf 'loop device /dev/%s: %s\n' "${file%%/*}" "$backing"
        fi
    done
}

left() {
    processes
    loop_devices
    mounts | comm -13 "$before" - | sed 's/^/mount: /'
    find "$folder" -mindepth 1 -maxdepth 2 -printf 'file: %p\n'
}

case ${1:-} in
begin)
    folder=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-test.XXXXXX")
    mounts >"$folder.mounts"
    printf '%s\n' "$folder"
    ;;
end)
    folder=$2
    before=$folder.mounts
    deadline=$((SECONDS + PATIENCE_SEC))
    found=$(left)
    while [ -n "$found" ] && [ "$SECONDS" -lt "$deadline" ]; do
        sleep 0.2
        found=$(left)
    done
    if [ -n "$found" ]; then
        printf 'The tests left this behind:\n%s\n' "$found" >&2
        exit 1
    fi
    rmdir "$folder"
    rm "$before"
    echo "The tests left no process, mount, loop device or file behind."
    ;;
*)
    echo "usage: scripts/leftovers.sh begin | end FOLDER" >&2
    exit 2
    ;;
esac
