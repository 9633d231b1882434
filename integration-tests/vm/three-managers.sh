# three-managers.sh: to be sourced. Three managers m1, m2 and m3 in network namespaces of their own, with their state in
# $disk/m1, $disk/m2 and $disk/m3, by the programs in $bin; each has the image $image.
ip link add u0 type bridge; ip link set u0 up
for i in 1 2 3; do
  ip netns add m$i; ip -n m$i link set lo up
  ip link add p$i type veth peer name eth0 netns m$i
  ip link set p$i master u0 up
  ip -n m$i addr add 192.168.9.$i/24 dev eth0; ip -n m$i link set eth0 up
done

declare -A pid
socket() { echo /run/m$1/swarmd.sock; }
ctl() { local i=$1; shift; SWARM_HOST=unix://$(socket $i) "$bin/swarmctl" "$@"; }
patiently() { # CMD...: until it succeeds, or a minute is over; then with its words
  for _ in $(seq 120); do ! "$@" >/run/said 2>&1 || return 0; sleep 0.5; done
  echo "${0##*/}: $* failed: $(cat /run/said)" >&2; exit 1
}
start() { # I: the daemon of manager I; `awaited` waits until it answers
  nsenter --net=/run/netns/m$1 "$bin/swarmd" --state-dir $disk/m$1 --run-dir /run/m$1 >>/run/m$1.log 2>&1 & pid[$1]=$!
}
awaited() { patiently test -S "$(socket $1)"; } # I
join() { # forms the swarm of three
  ctl 1 init --advertise-addr 192.168.9.1 >/dev/null
  local token; token=$(ctl 1 join-token manager -q)
  for i in 2 3; do patiently ctl $i join --token "$token" 192.168.9.1:2377; done
  for i in 1 2 3; do ctl $i image load -q -i "$image" >/dev/null; done
}
votes() { # whether every manager says that all three do
  for j in 1 2 3; do
    ctl $j node ls --format json >/run/nodes.$j || return 1
    [ "$(grep -c '"ManagerStatus":"\(Leader\|Reachable\)"' /run/nodes.$j)" = 3 ] || return 1
  done
}
services() { # I: names of the services that manager I knows; fails if the list may be out of date
  ctl $1 service ls --format json >/run/services.$1 2>/run/services.$1.err && [ ! -s /run/services.$1.err ] || return 1
  sed -n 's/.*"Name":"\([^"]*\)".*/\1/p' /run/services.$1
}
