#!/bin/bash
# setup.sh: prepares what run.sh boots, from Debian packages alone: a stock kernel and an initramfs.
#
# The kernel is unpacked, never installed. The initramfs mounts the host's / read-only over 9p under an overlay in
# memory (guest/init). Nothing is done if it is all there. Needs root, and the programs that xtask installs.
#   VM_DIR     where to keep it (/var/cache/swarm-vm)
#   VM_KERNEL  which kernel: a meta package (linux-image-amd64)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${VM_DIR:-/var/cache/swarm-vm}
meta=${VM_KERNEL:-linux-image-amd64}
export LC_ALL=C

fail() { echo "vm: $*" >&2; exit 1; }
for program in qemu-system-x86_64 busybox depmod dpkg-deb; do
  command -v $program >/dev/null || fail "$program is not installed"
done

mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"; flock 9 # another run may be preparing
stamp="$meta $(cat "$0" "$here"/guest/* | sha256sum | cut -c1-16)"
[ "$(cat "$dir/ready" 2>/dev/null)" != "$stamp" ] || exit 0

echo "vm: preparing the kernel of $meta in $dir" >&2
new=$dir.new; rm -rf "$new" "$dir"; mkdir -p "$new"; cd "$new"

# The kernel's own package, as the meta package names it. The index may be missing, or older than the mirror.
kernel_package() { apt-cache depends "$meta" 2>/dev/null | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'; }
fetch() { package=$(kernel_package); [ -n "$package" ] && apt-get download -qq "$package" >&2; }
fetch 2>/dev/null || { apt-get update -qq && fetch; } || fail "cannot download the kernel of $meta"
version=${package#linux-image-}

# Only what network tests need: whole, it is 400 MB. A kernel has some of these as modules, others built in.
modules=./lib/modules/$version; kernel=$modules/kernel
wanted=(./boot "$modules/modules.*"
  "$kernel"/{net,crypto,lib,arch} "$kernel"/fs/{overlayfs,9p,netfs,fscache,fuse,ext4,jbd2}
  "$kernel/drivers/net/*.ko*" "$kernel"/drivers/net/{vxlan,wireguard,ipvlan,netdevsim}
  "$kernel/fs/mbcache.ko*" "$kernel/drivers/block/virtio_blk.ko*" "$kernel/drivers/md/dm-mod.ko*" "$kernel"/drivers/dax
  "$kernel/drivers/virtio" "$kernel/drivers/char/*.ko*" "$kernel/drivers/char/hw_random")
# tar complains of patterns without a match; what matters is checked below.
dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x --wildcards "${wanted[@]}" 2>/dev/null || true
rm -f ./*.deb
[ -f "boot/vmlinuz-$version" ] || fail "$package has no kernel"
for module in net/netfilter/ipvs/ip_vs net/ipv4/esp4 net/9p/9pnet_virtio fs/overlayfs/overlay; do
  compgen -G "$kernel/$module.ko*" >/dev/null || fail "$package has no module $module"
done
depmod -b "$new" "$version" 2>/dev/null || fail "depmod failed"

# Booting the unpacked kernel (by its PVH entry) saves seconds: an emulated CPU is slow at unpacking it.
unpack() { # PATTERN DECOMPRESSOR...: the payload begins at PATTERN; decompressors complain of what follows it
  local offset
  offset=$(grep -aobP -m1 "$1" "boot/vmlinuz-$version" | head -1 | cut -d: -f1); shift
  [ -n "$offset" ] || return 1
  tail -c +$((offset + 1)) "boot/vmlinuz-$version" | "$@" >kernel 2>/dev/null || true
  [ "$(head -c 4 kernel | tail -c 3)" = ELF ]
}
unpack '\xFD7zXZ\x00' xz -dc --single-stream || unpack '\x28\xB5\x2F\xFD' zstd -dc || mv -f "boot/vmlinuz-$version" kernel

mkdir -p root/bin root/modules root/proc root/dev
cp "$(command -v busybox)" root/bin/busybox
cp "$here/guest/init" "$here/guest/job" root/; chmod +x root/init
for module in virtio_pci virtio_console 9p 9pnet_virtio overlay virtio_rng; do
  modprobe -d "$new" -S "$version" --show-depends $module
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  cp "$file" root/modules/; basename "$file" >>root/modules/order
done
(cd root && find . | busybox cpio -o -H newc 2>/dev/null) >initramfs
rm -rf root boot

echo "$version" >version
echo "$stamp" >ready
mv "$new" "$dir"
