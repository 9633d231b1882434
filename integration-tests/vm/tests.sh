#!/bin/bash
# tests.sh PROGRAM [ARG...]: a test program of cargo, its ignored tests too. Tests that fail are run once more, by name:
# those that pass then are listed as flaky, as .config/nextest.toml has it outside the VM.
set -uo pipefail
program=$1; shift
said=$(mktemp); trap 'rm -f "$said"' EXIT

"$program" --include-ignored "$@" | tee "$said"; status=${PIPESTATUS[0]}
[ "$status" != 0 ] || exit 0
# Names as libtest sums them up: indented, after the last line "failures:".
mapfile -t failed < <(awk '/^failures:$/ { n = 0 } /^    [^ ]+$/ { names[n++] = $1 } /^test result:/ { for (i = 0; i < n; i++) print names[i] }' "$said")
[ ${#failed[@]} -gt 0 ] || exit "$status" # it did not get that far
echo "once more: ${failed[*]}"
"$program" --include-ignored "$@" --exact "${failed[@]}" || exit
for test in "${failed[@]}"; do echo "FLAKY, passed at the second try: $test"; done
