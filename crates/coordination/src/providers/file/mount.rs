//! Whether the locks of a directory reach beyond this machine.

use crate::Scope;

/// File systems whose record locks every client sees. `fuse.…` counts by its full name only: most FUSE file systems
/// keep locks to themselves.
const SHARED: [&str; 11] =
    ["nfs", "nfs4", "ceph", "fuse.glusterfs", "fuse.ceph", "fuse.quobyte", "gfs2", "ocfs2", "lustre", "gpfs", "cifs"];

/// Mount options that keep record locks on the client.
const LOCAL_LOCKS: [&str; 5] = ["nolock", "local_lock=all", "local_lock=posix", "nobrl", "localflock"];

/// Reads from `/proc/self/mountinfo` what the file system with this device number is.
pub(super) fn scope(mountinfo: &str, device: (u64, u64)) -> Scope {
    let wanted = format!("{}:{}", device.0, device.1);
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(wanted.as_str());
    let Some((_, about)) = mountinfo.lines().find(of_device).and_then(|line| line.split_once(" - ")) else {
        return Scope::Node;
    };
    let mut fields = about.split(' ');
    let shared = fields.next().is_some_and(|kind| SHARED.contains(&kind));
    let local = fields.nth(1).is_some_and(|options| options.split(',').any(|option| LOCAL_LOCKS.contains(&option)));
    if shared && !local { Scope::Cluster } else { Scope::Node }
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
        assert_eq!(scope(mounts, (8, 1)), Scope::Node);
        assert_eq!(scope(mounts, (0, 52)), Scope::Cluster);
        assert_eq!(scope(mounts, (0, 53)), Scope::Node);
        assert_eq!(scope(mounts, (0, 54)), Scope::Node);
        assert_eq!(scope(mounts, (0, 55)), Scope::Cluster);
        assert_eq!(scope(mounts, (9, 9)), Scope::Node);
    }
}
