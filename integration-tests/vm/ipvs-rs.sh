#!/bin/bash
# ipvs-rs.sh TESTS IPVS_LIST: the crate ipvs-rs against a kernel that has IPVS; run in the VM by `cargo xtask vm test`.
set -euo pipefail
tests=$1 list=$2
fail() { echo "ipvs-rs.sh: $*" >&2; exit 1; }
says() { # WORDS CMD...: the command must fail and say so
  local words=$1 said; shift
  if said=$("$@" 2>&1); then fail "$* succeeded, but should have failed with: $words"; fi
  [[ $said == *"$words"* ]] || fail "$* should have said \"$words\", not: $said"
}

# The kernel loads the module when it is asked for the family, unless it cannot.
modprobe=$(cat /proc/sys/kernel/modprobe)
echo /bin/false >/proc/sys/kernel/modprobe
says "this kernel has no ipvs: module ip_vs is not loaded and could not be" "$list"
echo "$modprobe" >/proc/sys/kernel/modprobe
"$list" >/dev/null
says "cannot read ipvs: not permitted, this needs CAP_NET_ADMIN" setpriv --reuid 65534 --clear-groups "$list"
says "cannot open network namespace /run/netns/none: No such file" "$list" /run/netns/none

bash "$(dirname "$0")/tests.sh" "$tests"

# The example prints what ipvsadm prints, with traffic counted.
ipvsadm -A -t 127.0.0.5:80 -s wlc
ipvsadm -a -t 127.0.0.5:80 -r 127.0.0.6:8080 -m -w 5
ipvsadm -a -t 127.0.0.5:80 -r 10.0.1.11:8080 -g -w 0
ipvsadm -A -u '[fd00::2]:53' -s sh
ipvsadm -a -u '[fd00::2]:53' -r '[fd00::11]:53' -m
ipvsadm -A -f 257 -s rr -p 300
ipvsadm -a -f 257 -r 10.0.1.11 -m
ipvsadm -A -f 258 -6 -s rr
for _ in 1 2 3; do : 2>/dev/null >/dev/tcp/127.0.0.5/80 || true; done # nobody listens: refused, but balanced
counted() { ipvsadm -Ln --stats | grep -q '^TCP  127.0.0.5:80 .* 3  '; }
for _ in $(seq 50); do ! counted || break; sleep 0.2; done # the kernel sums up every two seconds
counted || fail "ipvsadm counts no connections: $(ipvsadm -Ln --stats)"
diff <(ipvsadm -Ln --stats) <("$list") || fail "ipvs-list prints something else than ipvsadm"
echo "ipvs-list prints what ipvsadm prints"
