#!/bin/bash
# power-cut.sh BIN PREFIX: three managers with their state on the disk /dev/vda, one of many boots of a machine that loses
# its power; run in the VM by `cargo xtask vm power-cuts`. Prints a line `has NAME` for each service that is there, then
# `serving`, then `acknowledged NAME` for each service created since, until the end.
set -euo pipefail
bin=$1 prefix=$2 disk=/mnt
modprobe -a virtio_blk ext4 br_netfilter vxlan veth bridge
mount /dev/vda $disk

ip link add u0 type bridge; ip link set u0 up
for i in 1 2 3; do
  ip netns add m$i; ip -n m$i link set lo up
  ip link add p$i type veth peer name eth0 netns m$i
  ip link set p$i master u0 up
  ip -n m$i addr add 192.168.9.$i/24 dev eth0; ip -n m$i link set eth0 up
done
socket() { echo /run/m$1/swarmd.sock; }
ctl() { local i=$1; shift; SWARM_HOST=unix://$(socket $i) "$bin/swarmctl" "$@"; }
patiently() { # CMD...: until it succeeds, or a minute is over; then with its words
  for _ in $(seq 120); do ! "$@" >/run/said 2>&1 || return 0; sleep 0.5; done
  echo "power-cut.sh: $* failed: $(cat /run/said)" >&2; exit 1
}

for i in 1 2 3; do
  nsenter --net=/run/netns/m$i "$bin/swarmd" --state-dir $disk/m$i --run-dir /run/m$i >/run/m$i.log 2>&1 &
done
for i in 1 2 3; do patiently test -S "$(socket $i)"; done
if [ ! -e $disk/swarm ]; then
  ctl 1 init --advertise-addr 192.168.9.1 >/dev/null
  token=$(ctl 1 join-token manager -q)
  for i in 2 3; do patiently ctl $i join --token "$token" 192.168.9.1:2377; done
  touch $disk/swarm; sync
fi
for i in 1 2 3; do patiently ctl $i service ls -q; done
ctl 1 service ls --format json | sed -n 's/.*"Name":"\([^"]*\)".*/has \1/p'
echo serving
exec "$bin/swarm-bench" journal --socket "$(socket 1)" --socket "$(socket 2)" --socket "$(socket 3)" --prefix "$prefix"
