#!/bin/bash
# The first process of the guest. First half: put a writable layer in memory over the host's root. Second half, inside
# that: the devices and directories a command expects, then the command.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

die() { echo "init: $*"; echo 125 >/ctl/status 2>/dev/null; halt_now; }
halt_now() { echo o >/proc/sysrq-trigger 2>/dev/null; halt -f -p; }

if [ "${1:-}" != inside ]; then
  mount -t proc proc /proc
  read -r line </proc/cmdline
  ctl=${line#*ctl=} ctl=${ctl%% *}
  modules=/usr/lib/uml/modules/$(uname -r)
  mount -t tmpfs -o size=90% memory /mnt || die "no tmpfs"
  insmod "$modules/kernel/fs/overlayfs/overlay.ko" 2>/dev/null # built in on some kernels
  mkdir /mnt/upper /mnt/work /mnt/root
  mount -t overlay root /mnt/root -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work || die "no overlay"
  root=/mnt/root
  mkdir -p $root/ctl $root/proc $root/sys $root/dev $root/run $root/lib/modules
  ln -sfn "$modules" "$root/lib/modules/$(uname -r)"
  mount -t proc proc $root/proc
  mount -t sysfs sysfs $root/sys
  mount -t devtmpfs dev $root/dev
  mkdir -p $root/dev/pts $root/dev/shm
  mount -t devpts devpts $root/dev/pts
  mount -t tmpfs shm $root/dev/shm
  mount -t tmpfs run $root/run # what the host's services keep there is not true in here
  mount -t hostfs ctl $root/ctl -o "$ctl"
  exec chroot $root /ctl/init inside
fi

. /ctl/environment
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
mkdir -p /run/lock
: >/etc/resolv.conf # nobody to ask: fail at once instead of waiting for an answer
number=$(cat /ctl/number)
hostname "guest$number" # servers tell their clients apart by it
{
  echo "127.0.0.1 localhost guest"
  for other in 1 2 3 4; do echo "10.77.0.$other guest$other"; done
} >/etc/hosts
ip link set lo up
if [ -n "$number" ]; then
  ip link set vec0 up && ip address add "10.77.0.$number/24" dev vec0 || die "no network device"
fi
cd "$(eval "echo $(cat /ctl/directory)")" || cd /
setsid --wait bash -c "$(cat /ctl/command)" </dev/null
status=$?
sync
echo $status >/ctl/status
umount -a -f -t nfs,nfs4 2>/dev/null
halt_now
