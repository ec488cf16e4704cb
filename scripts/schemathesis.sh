#!/usr/bin/env bash
# Asks the REST interface everything that its own description allows, and much that it forbids, and
# fails on a 5xx, a status that is not described, or an answer of another shape than described.
#
#   scripts/schemathesis.sh [SECONDS]    60 where absent
#
# The daemon is the one over simulated machines. SCHEMATHESIS_SEED asks other questions than usual;
# what is found is told with the curl line that shows it again.
set -euo pipefail
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cd "$(dirname "$0")/.."

seconds=${1:-60}
program=$PWD/target/schemathesis/bin/schemathesis
config=$PWD/scripts/schemathesis.toml
[ -x "$program" ] || {
    echo "schemathesis: not installed; run scripts/setup.sh test" >&2
    exit 1
}

# Built as the tests are, so that nothing is built twice.
cargo build --quiet --workspace --all-features --example simulated
daemon=${CARGO_TARGET_DIR:-$PWD/target}/debug/examples/simulated

scratch=$(mktemp -d)
pid=
# Invoked by the trap.
# shellcheck disable=SC2317,SC2329
clean_up() {
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap clean_up EXIT

# Its first line is the address.
mkfifo "$scratch/ready"
"$daemon" 127.0.0.1:0 >"$scratch/ready" 2>"$scratch/log" &
pid=$!
read -r -t 30 line <"$scratch/ready" || {
    echo "schemathesis: the daemon did not start" >&2
    cat "$scratch/log" >&2
    exit 1
}
url=${line##* }

# What it keeps between runs would change what it asks: it starts afresh each time.
cd "$scratch"
status=0
"$program" --config-file "$config" run "$url/openapi.json" --header 'X-API-Key: sbk_simulated' \
    --checks all --mode all --max-time "$seconds" --seed "${SCHEMATHESIS_SEED:-1}" \
    --request-timeout 30 --continue-on-failure --warnings off --no-color || status=$?

kill -0 "$pid" 2>/dev/null || {
    echo "schemathesis: the daemon did not live through it" >&2
    status=1
}
if [ "$status" -ne 0 ]; then
    tail -n 50 "$scratch/log" >&2
fi
exit "$status"
