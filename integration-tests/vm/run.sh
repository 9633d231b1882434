#!/bin/bash
# run.sh [CMD [ARG...]]: runs a command as root in a throw-away VM, in the current directory, and exits with its status.
# Without a command: a shell on this terminal. Needs setup.sh to have run.
#
# QEMU without KVM (a stock kernel does not boot with every /dev/kvm), Debian's stock kernel. The guest sees the host's
# whole file system under an overlay in memory: nothing it writes survives, save below the directories named in VM_RW.
#   VM_TIMEOUT s (120, none for a shell)   VM_MEM (1G)   VM_SMP (2)   VM_RW absolute directories, by colons ()
#   VM_ENV names of variables to hand in ()   VM_UPPER size of the overlay (50% of memory)   VM_DIR (/var/cache/swarm-vm)
#   VM_DISK a raw image that is the guest's /dev/vda ()   VM_PID a file for the emulator's process id ()
# Exits with the command's status; 124 if it timed out; 125 if the guest died, after the end of its console.
set -u
dir=${VM_DIR:-/var/cache/swarm-vm}
[ -f "$dir/ready" ] || { echo "vm: no kernel in $dir: run setup.sh first" >&2; exit 125; }
job=$(mktemp -d "${TMPDIR:-/tmp}/vm.XXXXXX"); trap 'rm -rf "$job"' EXIT

# What the guest finds in /run/vmjob.
[ $# -gt 0 ] || { touch "$job/shell"; set -- bash -l; }
{
  for name in PATH HOME LANG TERM ${VM_ENV:-}; do [ -z "${!name+x}" ] || printf 'export %s=%q\n' "$name" "${!name}"; done
  printf 'cd %q || exit 126\nexec' "$PWD"; printf ' %q' "$@"; echo
} >"$job/command"
shares=(); i=0; : >"$job/rw"
IFS=: read -ra writable <<<"${VM_RW:-}"
for path in "${writable[@]}"; do
  echo "$path" >>"$job/rw"
  shares+=(-fsdev "local,id=w$i,path=$path,security_model=none,multidevs=remap" -device "virtio-9p-pci,fsdev=w$i,mount_tag=rw$i")
  i=$((i + 1))
done

more=()
[ -z "${VM_DISK:-}" ] || more+=(-drive "file=$VM_DISK,if=virtio,format=raw,cache=writeback")
[ -z "${VM_PID:-}" ] || more+=(-pidfile "$VM_PID")

# A panic ends the machine, and an oops is one: otherwise tests would go on with a broken kernel.
arguments="console=ttyS0 quiet oops=panic panic=-1 reboot=t mitigations=off random.trust_cpu=on"
machine=(qemu-system-x86_64 -M q35,usb=off,sata=off,smbus=off -accel tcg,thread=multi,tb-size=256 -cpu max,la57=off
  -m "${VM_MEM:-1G}" -smp "${VM_SMP:-2}" -no-reboot -nodefaults -no-user-config -display none
  -chardev "file,id=log,path=$job/console" -serial chardev:log
  -device virtio-serial-pci -device virtio-rng-pci
  -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=root,mount_tag=root
  -fsdev "local,id=job,path=$job,security_model=none" -device virtio-9p-pci,fsdev=job,mount_tag=vmjob "${shares[@]}" "${more[@]}"
  -kernel "$dir/kernel" -initrd "$dir/initramfs"
  -append "$arguments vmdir=$dir vmupper=${VM_UPPER:-50%} ${VM_APPEND:-}")

if [ -e "$job/shell" ]; then
  "${machine[@]}" -chardev stdio,id=tty,signal=off -device virtconsole,chardev=tty,nr=0 2>"$job/qemu"
  ended=$?; stty sane
else
  # stdout and stderr by pipes of their own, since qemu would make ours non-blocking. pdeathsig: if we are killed.
  { { {
    setpriv --pdeathsig TERM timeout -k 5 "${VM_TIMEOUT:-120}" setpriv --pdeathsig KILL "${machine[@]}" \
      -add-fd fd=8,set=1 -chardev file,id=out,path=/dev/fdset/1,append=on -device virtserialport,chardev=out,nr=1 \
      -add-fd fd=9,set=2 -chardev file,id=err,path=/dev/fdset/2,append=on -device virtserialport,chardev=err,nr=2 \
      </dev/null 8>&1 9>&3 >"$job/qemu" 2>&1
    echo $? >"$job/ended"
  } | cat >&4; } 3>&1 | cat >&2; } 4>&1
  ended=$(cat "$job/ended")
fi

[ "$ended" != 0 ] || [ ! -f "$job/status" ] || exit "$(cat "$job/status")"
{
  case $ended in
    124 | 137) echo "vm: timed out after ${VM_TIMEOUT:-120} s" ;;
    *) echo "vm: the guest died (qemu: $ended); its console:" ;;
  esac
  cat "$job/qemu"; tail -n 200 "$job/console" # a panic says its reason above two traces of up to 50 lines
} >&2
case $ended in 124 | 137) exit 124 ;; *) exit 125 ;; esac
