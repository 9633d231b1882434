#!/bin/bash
# balancer.sh IPVS_TESTS: the IPVS engine of the crate swarm-balancer; run in the VM by `cargo xtask vm test`.
set -euo pipefail
modprobe -a br_netfilter vxlan # as swarmd does; the rest the kernel loads itself
exec "$1" --include-ignored --test-threads 4
