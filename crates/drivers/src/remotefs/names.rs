//! Names of files on a share (contract: remotefs-nfs §6).
//!
//! Everything of one volume lies in the share's top directory and begins with the volume's file name. What we add ends in
//! `.scoria-…`: the Python driver only ever touches names that it computes or finds in `.info`, so it never meets ours.

use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

/// Where a share is mounted: below the base, in a directory named after the MD5 of its address.
pub(crate) fn mount_point(base: &Path, address: &str) -> PathBuf {
    let digest = Md5::digest(address.as_bytes());
    base.join(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// The file that says which file is active.
pub(crate) fn info(volume: &str) -> String {
    format!("{volume}.info")
}

/// The file that a snapshot's changes go to.
pub(crate) fn overlay(volume: &str, snapshot: &str) -> String {
    format!("{volume}.{snapshot}")
}

/// Where a volume or an overlay is built. One name is enough: one operation at a time works on a volume.
pub(crate) fn aside(volume: &str) -> String {
    format!("{volume}.scoria-tmp")
}

/// Where a new `.info` is written.
pub(crate) fn info_aside(volume: &str) -> String {
    format!("{volume}.info.scoria-tmp")
}

/// The file whose lock fences the volume.
pub(crate) fn fence(volume: &str) -> String {
    format!("{volume}.scoria-lock")
}

/// Whether a name is the volume's own file or one of its overlays: `<volume>`, `<volume>.<id>`, `<volume>.tmp-snap-<id>`.
pub(crate) fn is_of(name: &str, volume: &str) -> bool {
    let Some(rest) = name.strip_prefix(volume) else { return false };
    if rest.is_empty() {
        return true;
    }
    let Some(id) = rest.strip_prefix('.') else { return false };
    let id = id.strip_prefix("tmp-snap-").unwrap_or(id);
    !id.is_empty() && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// The name of a backing file, when it is one of the volume's on this share: a bare name, or one with the directory of a
/// share (Python's first pointer to it) in front.
pub(crate) fn backing<'a>(pointer: &'a str, volume: &str, share: &Path) -> Option<&'a str> {
    let (directory, name) = match pointer.rsplit_once('/') {
        Some((directory, name)) => (Some(Path::new(directory)), name),
        None => (None, pointer),
    };
    let beside = |directory: &Path| {
        let hex = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_hexdigit());
        let is_mount = directory.file_name().and_then(|name| name.to_str()).is_some_and(hex);
        directory == share || is_mount && directory.parent() == share.parent()
    };
    (directory.is_none_or(beside) && is_of(name, volume)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_named_after_the_address() {
        let path = mount_point(Path::new("/var/lib/cinder/mnt"), "10.0.0.1:/vol1");
        assert_eq!(path, Path::new("/var/lib/cinder/mnt/b82583dee88c2f18aa4f5b8415b62c2f"));
    }

    #[test]
    fn only_files_of_the_volume_may_back_it() {
        let share = Path::new("/mnt/0a1b");
        let own = |pointer| backing(pointer, "volume-a.b", share);
        assert_eq!(own("volume-a.b"), Some("volume-a.b"));
        assert_eq!(own("volume-a.b.0f-1"), Some("volume-a.b.0f-1"));
        assert_eq!(own("/mnt/0a1b/volume-a.b.tmp-snap-0f"), Some("volume-a.b.tmp-snap-0f"));
        assert_eq!(own("/mnt/ffff/volume-a.b"), Some("volume-a.b"));
        for stranger in [
            "/etc/passwd",
            "../volume-a.b",
            "volume-aXb",
            "volume-a.bc",
            "volume-a.b.",
            "volume-a.b.scoria-tmp",
            "/mnt/0a1b/../volume-a.b",
            "/mnt/zz/volume-a.b",
            "json:{}",
            "nbd://x/volume-a.b",
            "volume-a.b.info",
            "",
        ] {
            assert_eq!(own(stranger), None, "{stranger}");
        }
    }
}
