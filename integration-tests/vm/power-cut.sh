#!/bin/bash
# power-cut.sh BIN IMAGE PREFIX: three managers with their state on the disk /dev/vda, one of many boots of a machine that loses
# its power; run in the VM by `cargo xtask vm power-cuts`. Prints a line `has NAME` for each service that is there, then
# `serving`, then `acknowledged NAME` for each service created since, until the end.
set -euo pipefail
bin=$1 image=$2 prefix=$3 disk=/mnt
modprobe -a virtio_blk ext4 br_netfilter vxlan veth bridge
mount /dev/vda $disk
. "$(dirname "$0")/three-managers.sh"

for i in 1 2 3; do start $i; done; for i in 1 2 3; do awaited $i; done
if [ ! -e $disk/swarm ]; then join; touch $disk/swarm; sync; fi
for i in 1 2 3; do patiently services $i; done
services 1 | sed 's/^/has /'
echo serving
exec "$bin/swarm-bench" journal --socket "$(socket 1)" --socket "$(socket 2)" --socket "$(socket 3)" --prefix "$prefix"
