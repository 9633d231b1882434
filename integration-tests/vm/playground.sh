#!/bin/bash
# playground.sh TESTS: a playground of three nodes in the VM; run there by `cargo xtask vm test`.
set -euo pipefail
# Writable layers of containers cannot be on the overlay that is the VM's root.
mkdir -p /var/lib/swarm-playground
mount -t tmpfs -o size=60% playground /var/lib/swarm-playground
# traffic: an emulated CPU takes some 20 times as long for a call, and for all that a swarm does.
export SWARM_PAUSE=${SWARM_PAUSE:-300}
bash "$(dirname "$0")/tests.sh" "$1" --nocapture
