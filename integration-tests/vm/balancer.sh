#!/bin/bash
# balancer.sh IPVS_TESTS NFTABLES_TESTS: the engines of the crate swarm-balancer, side by side on one kernel; run in the
# VM by `cargo xtask vm test`.
set -euo pipefail
modprobe -a br_netfilter vxlan # as swarmd does; the rest the kernel loads itself
for tests in "$@"; do
  bash "$(dirname "$0")/tests.sh" "$tests" --test-threads 4
done
