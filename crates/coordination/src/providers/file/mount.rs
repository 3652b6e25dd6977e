//! What kind of file system a directory is on: how far its locks reach, and whether it can hang on a server.

use crate::Scope;

/// File systems whose record locks every client sees. `fuse.…` counts by its full name only: most FUSE file systems
/// keep locks to themselves.
const SHARED: [&str; 11] =
    ["nfs", "nfs4", "ceph", "fuse.glusterfs", "fuse.ceph", "fuse.quobyte", "gfs2", "ocfs2", "lustre", "gpfs", "cifs"];

/// Mount options that keep record locks on the client.
const LOCAL_LOCKS: [&str; 5] = ["nolock", "local_lock=all", "local_lock=posix", "nobrl", "localflock"];

/// File systems that need nobody else to answer.
const LOCAL: [&str; 9] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "f2fs", "zfs"];

/// What is known of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) scope: Scope,
    /// It does not hang on a server.
    pub(super) local: bool,
}

/// Reads from `/proc/self/mountinfo` what the file system with this device number is. An unknown one reaches no further
/// than this machine, and may hang.
pub(super) fn file_system(mountinfo: &str, device: (u64, u64)) -> FileSystem {
    let wanted = format!("{}:{}", device.0, device.1);
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(wanted.as_str());
    let about =
        mountinfo.lines().find(of_device).and_then(|line| line.split_once(" - ")).map_or("", |(_, about)| about);
    let mut fields = about.split(' ');
    let kind = fields.next().unwrap_or_default();
    let local_locks =
        fields.nth(1).is_some_and(|options| options.split(',').any(|option| LOCAL_LOCKS.contains(&option)));
    let scope = if SHARED.contains(&kind) && !local_locks { Scope::Cluster } else { Scope::Node };
    FileSystem { scope, local: LOCAL.contains(&kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_file_systems_that_lock_at_the_server_reach_the_cluster() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                      40 22 0:52 / /mnt/a rw - nfs4 server:/a rw,vers=4.2,hard,local_lock=none\n\
                      41 22 0:53 / /mnt/b rw - nfs server:/b rw,vers=3,nolock,local_lock=all\n\
                      42 22 0:54 / /mnt/c rw shared:7 master:1 - fuse.sshfs me@host: rw\n\
                      43 22 0:55 / /mnt/d rw - fuse.glusterfs server:/d rw\n";
        for (device, scope, local) in [
            ((8, 1), Scope::Node, true),
            ((0, 52), Scope::Cluster, false),
            ((0, 53), Scope::Node, false),
            ((0, 54), Scope::Node, false),
            ((0, 55), Scope::Cluster, false),
            ((9, 9), Scope::Node, false),
        ] {
            assert_eq!(file_system(mounts, device), FileSystem { scope, local }, "{device:?}");
        }
    }
}
