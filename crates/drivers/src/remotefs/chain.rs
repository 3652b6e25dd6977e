//! Chains of files: the active one, what it stands on, down to the root.
//!
//! Formats are never guessed from content that a guest controls. The volume's own file has the format recorded in the row
//! (`base_format` once there are snapshots, `format` before); every other file of the volume is a qcow2 overlay that a
//! driver made. Raw is always safe to assume; qcow2 is believed only of a file that says so and leads nowhere else.

use scoria_model::{FaultClass, Volume};

use super::info::Info;
use super::inspect::{self, Format, HEAD, Inspection};
use super::names;
use super::place::Place;
use crate::{Error, ErrorKind};

/// More overlays than this on one volume are a loop.
const LONGEST: usize = 4096;

/// One file of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) file: String,
    pub(crate) format: Format,
    /// Bytes.
    pub(crate) virtual_size: u64,
    /// The file below, and the format in which the header says it is.
    pub(crate) backing: Option<String>,
    pub(crate) backing_format: Option<String>,
}

/// The format recorded for the volume's own file.
pub(crate) fn recorded_format(volume: &Volume) -> Option<&str> {
    let metadata = &volume.admin_metadata;
    metadata.get("base_format").or_else(|| metadata.get("format")).map(String::as_str)
}

impl Place<'_> {
    /// The file that is written to now.
    pub(crate) fn active<'i>(&'i self, info: &'i Info) -> &'i str {
        info.active().unwrap_or(&self.name)
    }

    /// Looks at one file of the volume; `None` when it is not there.
    ///
    /// # Errors
    /// `RemoteFSInvalidBackingFile` when it stands on a file that is not the volume's, `InvalidVolume` when it must not be
    /// opened.
    pub(crate) async fn layer(&self, file: &str, volume: &Volume) -> Result<Option<Layer>, Error> {
        let is_base = file == self.name;
        if is_base && recorded_format(volume) == Some("raw") {
            return self.raw_layer(file).await;
        }
        let Some(head) = self.read_head(file, HEAD).await? else { return Ok(None) };
        let found = inspect::inspect(&head);
        match found.format {
            Format::Qcow2 => self.qcow2_layer(file, found).map(Some),
            // Recorded as qcow2 but raw in truth: Python leaves this after an image was copied in.
            Format::Raw if is_base => self.raw_layer(file).await,
            other => {
                let reason = format!("{} is {other}, expected qcow2 or raw", self.path(file).display());
                Err(Error::invalid_volume(reason))
            }
        }
    }

    async fn raw_layer(&self, file: &str) -> Result<Option<Layer>, Error> {
        Ok(self.stat(file).await?.map(|stat| Layer {
            file: file.to_owned(),
            format: Format::Raw,
            virtual_size: stat.length,
            backing: None,
            backing_format: None,
        }))
    }

    fn qcow2_layer(&self, file: &str, found: Inspection) -> Result<Layer, Error> {
        if let Some(reason) = found.unsafe_because {
            return Err(Error::invalid_volume(format!("{} is not safe: {reason}", self.path(file).display())));
        }
        let backing = match &found.backing_file {
            None => None,
            Some(pointer) => match names::backing(pointer, &self.name, &self.share.root) {
                Some(name) if name != file => Some(name.to_owned()),
                _ => return Err(self.invalid_backing(file, pointer)),
            },
        };
        Ok(Layer {
            file: file.to_owned(),
            format: Format::Qcow2,
            virtual_size: found.virtual_size.unwrap_or_default(),
            backing,
            backing_format: found.backing_format,
        })
    }

    fn invalid_backing(&self, file: &str, pointer: &str) -> Error {
        let path = self.path(file).display().to_string();
        let message = format!("File {path} has invalid backing file {pointer}.");
        let mut error = Error::new(ErrorKind::Invalid, FaultClass::RemoteFSInvalidBackingFile, message);
        error.fault = error.fault.with("path", path).with("backing_file", pointer);
        error
    }

    /// The chain from a file down. It ends early at a file that is not there ([`Chain::missing`]).
    pub(crate) async fn chain(&self, from: &str, volume: &Volume) -> Result<Chain, Error> {
        let mut layers: Vec<Layer> = Vec::new();
        let mut next = Some(from.to_owned());
        while let Some(file) = next {
            if layers.len() >= LONGEST || layers.iter().any(|layer| layer.file == file) {
                return Err(self.invalid_backing(from, &file));
            }
            // What an overlay made by a driver says of the volume's own file stands above what that file says of itself.
            let said_raw = layers.last().is_some_and(|above| above.backing_format.as_deref() == Some("raw"));
            let layer = if said_raw && file == self.name {
                self.raw_layer(&file).await?
            } else {
                self.layer(&file, volume).await?
            };
            match layer {
                None => return Ok(Chain { layers, missing: Some(file) }),
                Some(layer) => {
                    next = layer.backing.clone();
                    layers.push(layer);
                }
            }
        }
        self.check_formats(&layers)?;
        Ok(Chain { layers, missing: None })
    }

    /// What an overlay says its backing file is, is what qemu will open it as: it must be what that file is.
    fn check_formats(&self, layers: &[Layer]) -> Result<(), Error> {
        for pair in layers.windows(2) {
            let [above, below] = pair else { continue };
            let said = above.backing_format.as_deref();
            // Raw reads bytes and follows nothing: harmless whatever the file is.
            if said != Some("raw") && said != Some(below.format.as_str()) {
                let path = self.path(&above.file);
                let reason = format!(
                    "{} says that {} is {}, but it is {}; set it right with qemu-img rebase -u",
                    path.display(),
                    below.file,
                    said.unwrap_or("of no known format"),
                    below.format
                );
                return Err(Error::invalid_volume(reason));
            }
        }
        Ok(())
    }

    /// A chain that has to be whole.
    pub(crate) async fn whole_chain(&self, from: &str, volume: &Volume) -> Result<Vec<Layer>, Error> {
        let chain = self.chain(from, volume).await?;
        match chain.missing {
            None => Ok(chain.layers),
            Some(file) => {
                let path = self.path(&file);
                Err(Error::driver(ErrorKind::Failed, format!("{} is not on the share", path.display())))
            }
        }
    }
}

/// Files from the top down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) layers: Vec<Layer>,
    /// The file that should come next but is not there.
    pub(crate) missing: Option<String>,
}

impl Chain {
    pub(crate) fn has(&self, file: &str) -> bool {
        self.layers.iter().any(|layer| layer.file == file)
    }

    /// The file that stands on `file`.
    pub(crate) fn above(&self, file: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.backing.as_deref() == Some(file))
    }
}
