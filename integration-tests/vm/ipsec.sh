#!/bin/bash
# ipsec.sh TESTS: the crate swarm-ipsec against a kernel that has IPsec; run in the VM by `cargo xtask vm test`.
set -euo pipefail
modprobe -a bridge veth vxlan # the rest the kernel loads itself
bash "$(dirname "$0")/tests.sh" "$1" --test-threads 2
