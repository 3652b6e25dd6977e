//! `qemu-img`, always told the formats: it never has to guess, so nobody can mislead it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use scoria_runtime::Command;

use super::chain::Layer;
use super::inspect::Format;
use super::place::Place;
use crate::Error;

impl Place<'_> {
    /// Runs `qemu-img` on files of the share: as ourselves when we may read and write all of them.
    async fn qemu_img(&self, args: Vec<OsString>, writes: &[&str]) -> Result<(), Error> {
        self.qemu_img_reading(args, Vec::new(), writes).await
    }

    async fn qemu_img_reading(&self, args: Vec<OsString>, reads: Vec<PathBuf>, writes: &[&str]) -> Result<(), Error> {
        let as_root = self.has_root() && {
            let root = self.share.root.clone();
            let writes: Vec<_> = writes.iter().map(|file| self.path(file)).collect();
            let ours = move || {
                let may = |path: &Path, flags| access(path, flags).is_ok();
                let both = AccessFlags::R_OK | AccessFlags::W_OK;
                Ok(may(&root, both)
                    && writes.iter().all(|path| !path.exists() || may(path, both))
                    && reads.iter().all(|path| may(path, AccessFlags::R_OK)))
            };
            !self.call(ours).await?.unwrap_or(false)
        };
        self.run(Command::new("qemu-img").args(args).as_root(as_root)).await?;
        Ok(())
    }

    /// A blank qcow2 file.
    pub(crate) async fn create_qcow2(&self, file: &str, size: u64) -> Result<(), Error> {
        let mut args = words(&["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata"]);
        args.extend([self.path(file).into(), size.to_string().into()]);
        self.qemu_img(args, &[file]).await
    }

    /// An overlay on a file of the same directory, which is not opened: its name and format are only written down.
    pub(crate) async fn create_overlay(&self, file: &str, backing: &str, on: Format, size: u64) -> Result<(), Error> {
        let mut args = words(&["create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", on.as_str()]);
        args.extend([self.path(file).into(), size.to_string().into()]);
        self.qemu_img(args, &[file]).await
    }

    /// Writes an overlay's data into the file it stands on; the overlay keeps them too.
    pub(crate) async fn commit(&self, overlay: &str, into: &str) -> Result<(), Error> {
        let mut args = words(&["commit", "-q", "-f", "qcow2", "-d"]);
        args.push(self.path(overlay).into());
        self.qemu_img(args, &[overlay, into]).await
    }

    /// Points an overlay at another file with the same content below it.
    pub(crate) async fn rebase(&self, overlay: &str, onto: &str, format: Format) -> Result<(), Error> {
        let mut args = words(&["rebase", "-q", "-u", "-f", "qcow2", "-b", onto, "-F", format.as_str()]);
        args.push(self.path(overlay).into());
        self.qemu_img(args, &[overlay]).await
    }

    /// Grows a qcow2 file.
    pub(crate) async fn resize_qcow2(&self, file: &str, size: u64) -> Result<(), Error> {
        let mut args = words(&["resize", "-q", "-f", "qcow2"]);
        args.extend([self.path(file).into(), size.to_string().into()]);
        self.qemu_img(args, &[file]).await
    }

    /// Copies what a chain (from the top down) holds into a file of its own. `source` is the source volume's place, perhaps
    /// on another share.
    pub(crate) async fn convert(&self, source: &Place<'_>, from: &[Layer], to: (&str, Format)) -> Result<(), Error> {
        let reads: Vec<_> = from.iter().map(|layer| source.path(&layer.file)).collect();
        let (Some(top), Some(path)) = (from.first(), reads.first()) else { return Ok(()) };
        let mut args = words(&["convert", "-q", "-f", top.format.as_str(), "-O", to.1.as_str()]);
        args.extend([path.clone().into(), self.path(to.0).into()]);
        self.qemu_img_reading(args, reads, &[to.0]).await
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
