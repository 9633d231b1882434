#!/bin/bash
# install.sh: puts swarmd and swarmctl from a build onto this host, with a systemd unit, and starts the daemon.
# install.sh --uninstall takes them away again. `install.sh --help` has the rest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
from=$here/../target/release prefix=/usr/local action=install start=yes purge=no force=no

usage() {
  cat <<'TEXT'
Usage: install.sh [--from DIR] [--prefix DIR] [--no-start]
       install.sh --uninstall [--prefix DIR] [--force] [--purge]

Installs swarmd and swarmctl onto this host. Run it again to upgrade: containers live on. Options of swarmd are
SWARMD_OPTIONS="..." in /etc/default/swarmd.

  --from DIR     where the build left the programs (default: target/release of this checkout)
  --prefix DIR   install below this directory (default: /usr/local)
  --no-start     neither start the daemon nor restart a running one
  --uninstall    stop the daemon, and remove the programs and the unit
  --force        uninstall even though this host is part of a swarm: its containers run on, without a daemon
  --purge        uninstall, and remove the node's state, its images and its tasks' logs
TEXT
}
say() { echo "install.sh: $*" >&2; }
die() { say "$@"; exit 1; }
value() { [ -n "${2:-}" ] || die "$1 needs a value (see --help)"; echo "$2"; }

while [ $# -gt 0 ]; do
  case $1 in
    --from) from=$(value "$@"); shift ;;
    --prefix) prefix=$(value "$@"); shift ;;
    --no-start) start=no ;;
    --uninstall) action=uninstall ;;
    --force) force=yes ;;
    --purge) action=uninstall purge=yes ;;
    -h | --help) usage; exit ;;
    *) die "unknown argument $1 (see --help)" ;;
  esac
  shift
done
case $prefix in /*) ;; *) die "--prefix $prefix is not an absolute path" ;; esac

bin=$prefix/bin unit=/etc/systemd/system/swarmd.service state=/var/lib/swarmd run=/run/swarmd
programs=(swarmd swarmctl)
[ "$(id -u)" = 0 ] || die "run it as root"
systemd_runs() { [ -d /run/systemd/system ]; }

# By way of a new file: the old one may be running, and a reader never sees half of one.
put() { # MODE FILE, content on stdin
  mkdir -p "$(dirname "$2")"
  cat >"$2.new"; chmod "$1" "$2.new"; mv -f "$2.new" "$2"
}

check_host() {
  command -v nft >/dev/null || die "nft is missing: install the package nftables first"
  local module
  for module in vxlan br_netfilter overlay nf_tables tcp_diag; do
    # Built in, loaded, or loadable.
    [ -d "/sys/module/$module" ] || modprobe -q "$module" || say "warning: the kernel has no module $module"
  done
}

install_programs() {
  local program
  for program in "${programs[@]}"; do
    [ -x "$from/$program" ] || die "$from/$program is missing: run cargo build --release first, or name the build with --from"
  done
  check_host
  for program in "${programs[@]}"; do put 755 "$bin/$program" <"$from/$program"; done
  sed "s|@BIN@|$bin|" "$here/swarmd.service" | put 644 "$unit"
  if ! systemd_runs; then
    say "installed into $bin; systemd does not run here: start $bin/swarmd by other means"
    return
  fi
  systemctl daemon-reload
  systemctl -q enable swarmd
  [ "$start" = no ] || start_daemon
}

start_daemon() {
  systemctl restart swarmd
  # It has started once it answers.
  local try
  for try in $(seq 100); do
    if "$bin/swarmctl" info >/dev/null 2>&1; then
      local next="make a swarm with 'swarmctl init', or join one with 'swarmctl join'"
      [ ! -e "$state/node.json" ] || next="this host is part of its swarm as before"
      say "swarmd runs: $next"
      return
    fi
    sleep 0.1
  done
  die "swarmd does not answer: see journalctl -u swarmd"
}

uninstall_programs() {
  if [ -e "$state/node.json" ] && [ "$force" = no ]; then
    die "this host is part of a swarm: let it leave first (swarmctl leave), or use --force"
  fi
  if systemd_runs && [ -e "$unit" ]; then systemctl -q disable --now swarmd; fi
  ! "$bin/swarmctl" info >/dev/null 2>&1 || die "swarmd still runs: end it first"
  # What a container still uses is not taken from under it.
  if [ "$purge" = yes ] && grep -q " $run/" /proc/self/mounts; then
    die "containers of this node still run: swarmd was stopped, and nothing removed; reboot, then try again"
  fi
  local program
  for program in "${programs[@]}"; do rm -f "$bin/$program"; done
  rm -f "$unit"
  if systemd_runs; then systemctl daemon-reload; fi
  [ "$purge" = no ] || remove_state
}

remove_state() {
  # What is a mount point stays, empty.
  local dir
  for dir in "$state" "$run"; do
    [ ! -d "$dir" ] || find "$dir" -mindepth 1 -delete
    mountpoint -q "$dir" || rm -rf "$dir"
  done
}

"${action}_programs"
