//! Blank volumes, and building a volume's file aside.

use std::future::Future;
use std::sync::Arc;

use scoria_model::GIB;

use super::disk;
use super::inspect::Format;
use super::names;
use super::place::Place;
use crate::{Error, ErrorKind};

/// How much room one call reserves for a thick volume.
const PIECE: u64 = 256 << 20;

/// A size in GiB as bytes.
///
/// # Errors
/// `InvalidVolume` when that is more than any file can be.
pub(crate) fn bytes(size: u64) -> Result<u64, Error> {
    size.checked_mul(GIB)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| Error::invalid_volume(format!("a size of {size} GiB is not possible")))
}

impl Place<'_> {
    /// Runs `build`, which makes [`Place::aside`], and then gives that its final name `name`. What an earlier try left is
    /// removed first; after a failure of our own nothing is left. When we were stopped, nothing is touched any more:
    /// somebody else may be at work.
    pub(crate) async fn build<F>(&self, name: &str, build: F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>> + Send,
    {
        let aside = self.aside();
        self.remove(&aside).await?;
        let built = match build.await {
            Ok(()) => {
                self.core.faults.at("build.aside").await;
                self.publish(&aside, name).await
            }
            Err(error) => Err(error),
        };
        match built {
            Err(error) if error.kind != ErrorKind::Cancelled => {
                if let Err(left) = self.remove(&aside).await {
                    tracing::warn!(error = %left, "a half-made file is left");
                }
                Err(error)
            }
            other => {
                self.core.faults.at("build.published").await;
                other
            }
        }
    }

    /// Makes the blank volume.
    pub(crate) async fn create_blank(&self, size: u64) -> Result<(), Error> {
        let length = bytes(size)?;
        let aside = self.aside();
        let build = async {
            match self.core.format() {
                Format::Qcow2 => self.create_qcow2(&aside, length).await,
                _ if self.core.settings.sparsed => self.create_sparse(&aside, length).await,
                _ => self.create_thick(&aside, length).await,
            }
        };
        self.build(&self.name, build).await
    }

    async fn create_thick(&self, aside: &str, length: u64) -> Result<(), Error> {
        let Some(file) = self.as_ourselves("create", aside, disk::create).await? else {
            let mut output = std::ffi::OsString::from("of=");
            output.push(self.path(aside));
            let args = ["if=/dev/zero".into(), output, "bs=1M".into(), format!("count={}", length >> 20).into()];
            self.run(scoria_runtime::Command::new("dd").args(args).as_root(true)).await?;
            return Ok(());
        };
        let file = Arc::new(file);
        let mut at = 0;
        while at < length {
            let (file, piece) = (Arc::clone(&file), PIECE.min(length - at));
            let reserve = move || disk::reserve(&file, at, piece);
            self.call(reserve).await?.map_err(|error| Error::io("reserve room in", &self.path(aside), &error))?;
            at += piece;
        }
        Ok(())
    }

    /// Removes what an earlier try left on a share that was not chosen this time.
    pub(crate) async fn discard_leftovers(&self) -> Result<(), Error> {
        if self.stat(&self.aside()).await?.is_some() {
            self.remove(&self.aside()).await?;
            self.remove(&names::fence(&self.name)).await?;
        }
        Ok(())
    }
}
