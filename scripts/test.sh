#!/usr/bin/env bash
# Runs every test of the workspace, real VMs included, then looks for what they left behind.
# With arguments, only what they choose: scripts/test.sh -p sandbox-core r1_
set -uo pipefail
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cd "$(dirname "$0")/.." || exit

what=(--all-features "$@")
[ $# -gt 0 ] || what+=(--workspace)
status=0

# Built before the run begins, so that nothing a compiler leaves in /tmp is put down to the tests.
cargo nextest run "${what[@]}" --no-run || exit

folder=$(scripts/leftovers.sh begin) || exit
in_folder() { TMPDIR=$folder SANDBOX_TEST_RUN=$folder "$@"; }

if [ $# -eq 0 ]; then
    # First, so that the other tests' summary stands at the end.
    in_folder scripts/schemathesis.sh || status=1
    in_folder cargo test --doc --quiet "${what[@]}" || status=$?
fi
in_folder cargo nextest run "${what[@]}" || status=$?
scripts/leftovers.sh end "$folder" || status=1
exit "$status"
