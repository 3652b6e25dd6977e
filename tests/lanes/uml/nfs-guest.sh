#!/bin/bash
# Inside a guest: what mounting needs and, unless VERSION is "client", a kernel NFS server on the disk /dev/ubda; then COMMAND.
#   nfs-guest.sh VERSION COMMAND [ARGUMENT]...
set -u
version=$1
shift
die() { echo "nfs-guest: $*" >&2; exit 125; }

for module in nfs nfsv3 nfsv4; do modprobe $module || die "no kernel module $module"; done
state=/var/lib/nfs
rm -rf $state && mkdir -p $state/rpc_pipefs $state/v4recovery $state/sm $state/sm.bak
mount -t rpc_pipefs rpc_pipefs $state/rpc_pipefs
rpcbind -w || die "no rpcbind"
rpc.statd --no-notify || die "no rpc.statd"
[ "$version" != client ] || exec "$@"

modprobe nfsd || die "no kernel module nfsd"
: >$state/etab
: >$state/rmtab
mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /disk
# The disk goes with the guest: a journal and barriers would only cost time.
mkfs.ext4 -q -F -O ^has_journal /dev/ubda && mount -o nobarrier /dev/ubda /disk && mkdir -m 777 /disk/export || die "no disk to export"
echo "${SCORIA_NFS_LEASE:-10}" >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
rpc.mountd --no-nfs-version 2 || die "no rpc.mountd"
exportfs -o rw,no_root_squash,insecure,no_subtree_check,fsid=0 '*:/disk/export' || die "cannot export"
rpc.nfsd 8 || die "no nfsd"
# A fresh server has no clients to wait for; without this the first lock hangs for a minute and a half.
echo Y >/proc/fs/nfsd/v4_end_grace
echo Y >/proc/fs/lockd/nlm_end_grace 2>/dev/null

number=$(cat /ctl/number)
address=127.0.0.1
[ -z "$number" ] || address=10.77.0.$number
# Version 4 has one tree of exports, whose root our export is.
case $version in 3) path=/disk/export/ ;; *) path=/ ;; esac
export SCORIA_NFS_VERSION=$version SCORIA_NFS_DIRECTORY=/disk/export SCORIA_NFS_OPTIONS=vers=$version,proto=tcp
export SCORIA_NFS_SHARE=$address:$path
exec "$@"
