#!/bin/bash
# power-cut-one.sh BIN IMAGE CUTS: three managers, each with a disk of its own, a part of /dev/vda. Again and again, under load, one
# of them loses its power: its disk fails before it can take what was not synced, then its daemon is killed. The others
# must go on; the one must come back, vote, and know all that was ever acknowledged. Run by `cargo xtask vm power-cuts --one`.
set -euo pipefail
bin=$1 image=$2 cuts=$3 disk=/mnt
modprobe -a virtio_blk ext4 dm_mod br_netfilter vxlan veth bridge
part=$(($(blockdev --getsz /dev/vda) / 3 / 8 * 8))
attach() { # I: its disk
  dmsetup create m$1 --noudevsync --noudevrules --table "0 $part linear /dev/vda $((($1 - 1) * part))"
  dmsetup mknodes m$1
}
fail() { # I: from now on its disk takes nothing and gives nothing
  dmsetup suspend --noudevsync --noflush --nolockfs m$1
  dmsetup load m$1 --table "0 $part error"
  dmsetup resume --noudevsync --noudevrules m$1
}
for i in 1 2 3; do
  attach $i; mkfs.ext4 -q /dev/mapper/m$i; mkdir -p $disk/m$i; mount /dev/mapper/m$i $disk/m$i
done
. "$(dirname "$0")/three-managers.sh"
for i in 1 2 3; do start $i; done; for i in 1 2 3; do awaited $i; done
join
for i in 1 2 3; do patiently services $i; done

"$bin/swarm-bench" journal --socket "$(socket 1)" --socket "$(socket 2)" --socket "$(socket 3)" --prefix w --pause 20 \
  >/run/journal 2>/run/journal.err &
acknowledged() { grep -c '^acknowledged ' /run/journal; }
more_than() { [ "$(acknowledged)" -gt "$1" ]; }
patiently more_than 10
for cut in $(seq "$cuts"); do
  one=$((RANDOM % 3 + 1)) before=$(acknowledged)
  sleep $((RANDOM % 3)).$((RANDOM % 10))
  # Stopped first: it shall not see its disk fail.
  kill -STOP ${pid[$one]}; fail $one; kill -KILL ${pid[$one]}; wait ${pid[$one]} 2>/dev/null || true
  patiently umount $disk/m$one; dmsetup remove --noudevsync m$one
  at=$(acknowledged); patiently more_than $((at + 10))
  attach $one; mount /dev/mapper/m$one $disk/m$one
  rm -f "$(socket $one)"; start $one; awaited $one
  grep '^acknowledged ' /run/journal | sed 's/.* //' | sort >/run/wanted
  patiently services $one
  # The list is younger than what is wanted of it.
  services $one | sort >/run/there
  lost=$(comm -23 /run/wanted /run/there)
  [ -z "$lost" ] || { echo "after cut $cut m$one has lost:" $lost >&2; exit 1; }
  patiently votes
  echo "cut $cut: m$one; $(wc -l </run/wanted) acknowledged, all there; $((at - before)) since the one before"
done
