//! What a file is, by its first bytes: pure parsing, no I/O, no `qemu-img`.
//!
//! The rules are those of `cinder/image/format_inspector.py`: everything that is not surely something else is raw, and an
//! image is safe only when nothing in its header leads to another file. `qemu-img info` on a file whose content a guest
//! controls is an old way into the host (CVE-2015-1851, CVE-2024-32498); a header parser has nowhere to go.

use std::fmt;

/// How much of a file [`inspect`] wants to see: header, extensions and the name of the backing file.
pub(crate) const HEAD: usize = 64 * 1024;

/// A disk image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// No structure at all.
    Raw,
    /// qcow2, version 2 or 3.
    Qcow2,
    /// QED.
    Qed,
    /// VHD with a header (dynamic).
    Vhd,
    /// VHDX.
    Vhdx,
    /// VMDK, sparse.
    Vmdk,
    /// VDI.
    Vdi,
}

impl Format {
    /// The name that `qemu-img` and the row's metadata know it by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The format.
    pub format: Format,
    /// Size of the disk in it, in bytes; `None` where the header does not hold it (raw: the file's length).
    pub virtual_size: Option<u64>,
    /// Name of the backing file, as it stands in the header.
    pub backing_file: Option<String>,
    /// Format of the backing file, as it stands in the header.
    pub backing_format: Option<String>,
    /// Why the image must not be opened; a backing file alone is no reason here.
    pub unsafe_because: Option<&'static str>,
}

impl Inspection {
    fn plain(format: Format) -> Self {
        Self { format, virtual_size: None, backing_file: None, backing_format: None, unsafe_because: None }
    }
}

/// Looks at the first bytes of a file (all of it, or at least 64 KiB).
#[must_use]
pub fn inspect(head: &[u8]) -> Inspection {
    if head.starts_with(b"QFI\xfb") && head.len() >= 512 {
        return qcow2(head);
    }
    if head.starts_with(b"QED\0") {
        return Inspection { unsafe_because: Some("QED is not supported"), ..Inspection::plain(Format::Qed) };
    }
    if head.starts_with(b"conectix") {
        return Inspection { virtual_size: be64(head, 48), ..Inspection::plain(Format::Vhd) };
    }
    if head.starts_with(b"vhdxfile") {
        return Inspection::plain(Format::Vhdx);
    }
    if head.starts_with(b"KDMV") {
        return vmdk(head);
    }
    if le(head, 0x40, 4) == Some(0xbeda_107f) {
        return Inspection { virtual_size: le(head, 0x170, 8), ..Inspection::plain(Format::Vdi) };
    }
    Inspection::plain(Format::Raw)
}

fn be64(head: &[u8], at: usize) -> Option<u64> {
    head.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

fn be32(head: &[u8], at: usize) -> Option<usize> {
    let bytes = head.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

fn le(head: &[u8], at: usize, len: usize) -> Option<u64> {
    Some(head.get(at..at + len)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

const DATA_FILE: u64 = 1 << 2;
const KNOWN_INCOMPATIBLE: u64 = 0b1111;
const EXTENSION_BACKING_FORMAT: usize = 0xe279_2aca;
/// The longest backing file name that the format allows.
const LONGEST_NAME: usize = 1023;

fn qcow2(head: &[u8]) -> Inspection {
    let mut found = Inspection { virtual_size: be64(head, 24), ..Inspection::plain(Format::Qcow2) };
    let version = be32(head, 4);
    let incompatible = if version == Some(2) { 0 } else { be64(head, 72).unwrap_or(u64::MAX) };
    let header_length = if version == Some(2) { 72 } else { be32(head, 100).unwrap_or(104) };
    found.backing_format = extension(head, header_length, EXTENSION_BACKING_FORMAT);
    found.unsafe_because = if incompatible & DATA_FILE != 0 {
        Some("its data are in another file")
    } else if incompatible & !KNOWN_INCOMPATIBLE != 0 {
        Some("it has features that are not known")
    } else {
        None
    };
    let offset = be64(head, 8).unwrap_or(0);
    if offset != 0 {
        let name = usize::try_from(offset).ok().zip(be32(head, 16)).filter(|(_, length)| *length <= LONGEST_NAME);
        let bytes = name.and_then(|(offset, length)| head.get(offset..offset.checked_add(length)?));
        match bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            Some(name) => found.backing_file = Some(name.to_owned()),
            None => found.unsafe_because = Some("the name of its backing file cannot be read"),
        }
    }
    found
}

/// The text of a header extension. Extensions follow the header: type, length, data padded to 8 bytes, until type 0.
fn extension(head: &[u8], mut at: usize, wanted: usize) -> Option<String> {
    loop {
        let (kind, length) = (be32(head, at)?, be32(head, at + 4)?);
        let data = head.get(at + 8..at.checked_add(8)?.checked_add(length)?)?;
        if kind == wanted {
            return std::str::from_utf8(data).ok().map(str::to_owned);
        }
        if kind == 0 {
            return None;
        }
        at += 8 + length.next_multiple_of(8);
    }
}

fn vmdk(head: &[u8]) -> Inspection {
    const SECTOR: u64 = 512;
    let mut found = Inspection::plain(Format::Vmdk);
    found.virtual_size = le(head, 12, 8).and_then(|sectors| sectors.checked_mul(SECTOR));
    let place = le(head, 28, 8).zip(le(head, 36, 8)).and_then(|(offset, length)| {
        let start = usize::try_from(offset.checked_mul(SECTOR)?).ok()?;
        let end = start.checked_add(usize::try_from(length.checked_mul(SECTOR)?).ok()?)?;
        head.get(start..end)
    });
    let text = place.map(|bytes| bytes.split(|byte| *byte == 0).next().unwrap_or_default());
    found.unsafe_because = match text.and_then(|text| std::str::from_utf8(text).ok()) {
        Some(text) => vmdk_descriptor(text).err(),
        None => Some("its descriptor cannot be read"),
    };
    found
}

fn vmdk_descriptor(text: &str) -> Result<(), &'static str> {
    let mut extents = 0;
    for line in text.lines().map(|line| line.trim().to_ascii_lowercase()) {
        let word = line.split(['=', ' ']).next().unwrap_or_default();
        if ["rw", "rdonly", "noaccess"].contains(&word) {
            if line.contains('/') {
                return Err("an extent of it is another path");
            }
            extents += 1;
        } else if !(line.is_empty() || line.starts_with('#') || line.starts_with("ddb")) {
            let is_setting = line.contains('=') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_setting {
                return Err("its descriptor has lines that are not known");
            }
        }
    }
    if extents == 0 { Err("its descriptor has no extent") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A qcow2 version 3 header with these incompatible features and this backing file.
    fn header(incompatible: u64, backing: Option<(&str, &str)>) -> Vec<u8> {
        let mut head = vec![0; 1024];
        head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        head[24..32].copy_from_slice(&(5u64 << 30).to_be_bytes());
        head[72..80].copy_from_slice(&incompatible.to_be_bytes());
        head[100..104].copy_from_slice(&104u32.to_be_bytes());
        if let Some((name, format)) = backing {
            head[8..16].copy_from_slice(&512u64.to_be_bytes());
            head[16..20].copy_from_slice(&u32::try_from(name.len()).unwrap().to_be_bytes());
            head[512..512 + name.len()].copy_from_slice(name.as_bytes());
            head[104..108].copy_from_slice(&0xe279_2acau32.to_be_bytes());
            head[108..112].copy_from_slice(&u32::try_from(format.len()).unwrap().to_be_bytes());
            head[112..112 + format.len()].copy_from_slice(format.as_bytes());
        }
        head
    }

    #[test]
    fn a_qcow2_header_tells_size_and_backing_file() {
        let found = inspect(&header(0, Some(("volume-1", "raw"))));
        assert_eq!(found.format, Format::Qcow2);
        assert_eq!(found.virtual_size, Some(5 << 30));
        assert_eq!(found.backing_file.as_deref(), Some("volume-1"));
        assert_eq!(found.backing_format.as_deref(), Some("raw"));
        assert_eq!(found.unsafe_because, None);
    }

    #[test]
    fn what_leads_out_of_the_file_or_is_not_known_is_unsafe() {
        assert!(inspect(&header(4, None)).unsafe_because.is_some(), "external data file");
        assert!(inspect(&header(1 << 9, None)).unsafe_because.is_some(), "unknown feature");
        assert!(inspect(&header(0b1011, None)).unsafe_because.is_none(), "dirty, corrupt and compression are known");
        let mut far = header(0, Some(("volume-1", "raw")));
        far[8..16].copy_from_slice(&u64::MAX.to_be_bytes());
        assert!(inspect(&far).unsafe_because.is_some(), "name out of reach");
        assert!(inspect(b"QED\0 and so on").unsafe_because.is_some());
    }

    #[test]
    fn formats_are_told_by_their_magic_and_short_or_other_files_are_raw() {
        assert_eq!(inspect(b"").format, Format::Raw);
        assert_eq!(inspect(b"QFI\xfb short").format, Format::Raw);
        assert_eq!(inspect(b"conectix").format, Format::Vhd);
        assert_eq!(inspect(b"vhdxfile").format, Format::Vhdx);
        let mut vdi = vec![0; 512];
        vdi[0x40..0x44].copy_from_slice(&0xbeda_107fu32.to_le_bytes());
        assert_eq!(inspect(&vdi).format, Format::Vdi);
    }

    #[test]
    fn a_vmdk_may_name_extents_of_its_own_only() {
        let vmdk = |descriptor: &str| {
            let mut head = vec![0; 2048];
            head[..4].copy_from_slice(b"KDMV");
            head[28] = 1;
            head[36] = 2;
            head[512..512 + descriptor.len()].copy_from_slice(descriptor.as_bytes());
            inspect(&head).unsafe_because
        };
        assert_eq!(vmdk("# Disk\nversion=1\nCID=fffffffe\nRW 2048 SPARSE \"disk.vmdk\"\nddb.x = \"y\"\n"), None);
        assert!(vmdk("version=1\nRW 2048 FLAT \"/etc/passwd\" 0\n").is_some());
        assert!(vmdk("version=1\n").is_some());
        assert!(vmdk("something else\nRW 1 SPARSE \"x\"\n").is_some());
    }

    proptest! {
        #[test]
        fn no_header_brings_it_down(mut head in prop::collection::vec(any::<u8>(), 0..2048), magic in 0..4usize) {
            let magics: [&[u8]; 4] = [b"", b"QFI\xfb\0\0\0\x03", b"KDMV", b"conectix"];
            head.splice(0..0, magics[magic].iter().copied());
            prop_assert!(inspect(&head).backing_file.is_none_or(|name| name.len() <= LONGEST_NAME));
        }
    }
}
