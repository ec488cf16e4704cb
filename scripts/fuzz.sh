#!/usr/bin/env bash
# Runs each fuzz target for a while: scripts/fuzz.sh SECONDS [TARGET…]
# What is found is kept: inputs in fuzz/corpus, failures in fuzz/artifacts; neither is committed.
set -euo pipefail
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cd "$(dirname "$0")/.."

seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET…]}
shift

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: building cargo-fuzz (a minute or two)"
    cargo install --locked cargo-fuzz
fi
[ $# -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
[ $# -eq 0 ] || targets=("$@")

failed=()
for target in "${targets[@]}"; do
    echo "fuzz: $target for $seconds s"
    mkdir -p "fuzz/corpus/$target"
    # No sanitizer: they need an unstable compiler, and unsafe code is not what is looked for.
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 ||
        failed+=("$target")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: FAILED: ${failed[*]} (see fuzz/artifacts)" >&2
    exit 1
fi
echo "fuzz: ${#targets[@]} targets, nothing found"
