#!/bin/bash
# deploy.sh DIR: `deploy/install.sh` on a host with systemd: installed, upgraded under a running container, uninstalled.
# DIR holds the programs and the image whoami.tar. Run in the VM by `cargo xtask vm test`.
set -euo pipefail
dir=$1 install=$(cd "$(dirname "$0")/../../deploy" && pwd)/install.sh
die() { echo "${0##*/}: $*" >&2; exit 1; }
check() { echo "check $*"; }

# systemd is the first process of namespaces of its own. Writable layers of containers cannot be on the overlay that is the
# VM's root.
unshare --mount --pid --fork --mount-proc --propagation private bash -c '
  mount -t tmpfs -o mode=755 run /run; mkdir /run/lock
  mkdir -p /var/lib/swarmd; mount -t tmpfs -o size=60% state /var/lib/swarmd
  export container=vm
  exec /lib/systemd/systemd --system --unit=basic.target --log-target=console --log-level=notice --show-status=0
' >/dev/console 2>&1 &
unshared=$!
systemd() { pgrep -P $unshared systemd; }
host() { nsenter -t "$(systemd)" -m -p -- "$@"; }
eventually() { # CMD...: until it succeeds, or two minutes are over
  for _ in $(seq 240); do ! "$@" >/run/said 2>&1 || return 0; sleep 0.5; done
  die "$* failed: $(cat /run/said)"
}
booted() { systemd && host test -d /run/systemd/system && host systemctl is-system-running | grep -E 'running|degraded'; }
eventually booted

check "it is installed and runs"
host "$install" --from "$dir"
host systemctl is-active swarmd
host systemctl is-enabled swarmd
host swarmctl init --advertise-addr 127.0.0.1 >/dev/null
host swarmctl image load -q -i "$dir/whoami.tar" >/dev/null
host swarmctl network create net >/dev/null
host swarmctl service create -q --name web --network net whoami >/dev/null

check "a host of a swarm is not uninstalled"
! host "$install" --uninstall 2>/run/said || die "it was uninstalled"
grep -q "part of a swarm" /run/said || die "$(cat /run/said)"
host systemctl is-active swarmd

check "an upgrade restarts the daemon and no container"
daemon() { host systemctl show swarmd --property MainPID --value; }
container() { host pgrep -x swarm-whoami; }
before=$(container) daemon=$(daemon)
host "$install" --from "$dir"
[ "$(daemon)" != "$daemon" ] || die "the daemon was not restarted"
[ "$(container)" = "$before" ] || die "container $before was stopped: now $(container)"
runs() { host swarmctl service ps web | grep -q Running; }
eventually runs
[ "$(container)" = "$before" ] || die "container $before was replaced: now $(container)"

check "a daemon that is killed is started again"
daemon=$(daemon)
host kill -KILL "$daemon"
restarted() { [ "$(daemon)" != 0 ] && [ "$(daemon)" != "$daemon" ] && host swarmctl info; }
eventually restarted
[ "$(container)" = "$before" ] || die "container $before was stopped: now $(container)"

check "it is uninstalled without a trace"
host swarmctl leave --force >/dev/null
host "$install" --purge
! container || die "a container is left"
for path in /usr/local/bin/swarmd /usr/local/bin/swarmctl /etc/systemd/system/swarmd.service /run/swarmd; do
  ! host test -e $path || die "$path is left"
done
[ -z "$(host ls -A /var/lib/swarmd)" ] || die "state is left: $(host ls -A /var/lib/swarmd)"
! host systemctl cat swarmd 2>/run/said || die "systemd knows swarmd"
echo ok
