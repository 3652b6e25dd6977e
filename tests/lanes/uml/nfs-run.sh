#!/bin/bash
# nfs-run.sh [-n NUMBER] VERSION -- COMMAND [ARGUMENT]...        VERSION: 3, 4.0, 4.1 or 4.2
# nfs-run.sh -n NUMBER client -- COMMAND [ARGUMENT]...
#
# Runs COMMAND inside a user-mode Linux guest that has a real kernel NFS server and client, so that no module of the host's kernel
# and no right on the host is needed. COMMAND finds in its environment
#   SCORIA_NFS_SHARE      what to mount, with a slash at its end: the name of a directory in it may follow
#   SCORIA_NFS_OPTIONS    with which options, e.g. vers=4.2,proto=tcp
#   SCORIA_NFS_VERSION    the version alone
#   SCORIA_NFS_DIRECTORY  the exported directory itself, to look behind the server's back
# -n puts the guest on a network (see boot.sh); there, a guest may also be a client only, of another guest's server.
# Exit status: COMMAND's; 124 and 125 as in boot.sh. SCORIA_UML_TIMEOUT: seconds, 840 if unset.
# SCORIA_NFS_LEASE: after how many seconds of silence the server gives a client's locks away, 10 if unset.
set -u
here=$(cd "$(dirname "$0")" && pwd)
network=()
[ "${1:-}" != -n ] || { network=(-n "$2"); shift 2; }
case "${1:-} ${2:-}" in
"3 --" | "4.0 --" | "4.1 --" | "4.2 --" | "client --") version=$1; shift 2 ;;
*) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
for need in linux.uml:user-mode-linux modprobe:kmod ip:iproute2 rpc.nfsd:nfs-kernel-server mount.nfs:nfs-common rpcbind:rpcbind mkfs.ext4:e2fsprogs; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${need%:*}" >/dev/null ||
    { echo "${need%:*} is not installed: apt-get install ${need#*:} (or run scripts/setup test)" >&2; exit 127; }
done
exec "$here/boot.sh" -m 3G -d 8G "${network[@]}" -t "${SCORIA_UML_TIMEOUT:-840}" -- "$here/nfs-guest.sh" "$version" "$@"
