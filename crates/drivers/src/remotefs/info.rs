//! The `.info` file: which file is active, and which file each snapshot's changes went to.
//!
//! The bytes are those of Python's `json.dump(indent=1, sort_keys=True)`, since Python peers read and rewrite the same
//! file. How it is replaced is ours: written aside, synced, renamed; no reader ever sees half of it (Python truncates it in
//! place). Keys are snapshot ids and `active`; values are names in the share's top directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::names;
use super::place::Place;
use crate::{Error, ErrorKind};

/// Key of the file that is written to now.
const ACTIVE: &str = "active";

/// The content of an `.info` file; empty when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Info(BTreeMap<String, String>);

impl Info {
    /// The active file, when recorded.
    pub(crate) fn active(&self) -> Option<&str> {
        self.0.get(ACTIVE).map(String::as_str)
    }

    /// Makes a file the active one.
    pub(crate) fn set_active(&mut self, file: &str) {
        self.0.insert(ACTIVE.to_owned(), file.to_owned());
    }

    /// The file that a snapshot's changes go to; its frozen content is that file's backing file.
    pub(crate) fn forward(&self, snapshot: &str) -> Option<&str> {
        if snapshot == ACTIVE {
            return None;
        }
        self.0.get(snapshot).map(String::as_str)
    }

    /// Records a snapshot.
    pub(crate) fn insert(&mut self, snapshot: &str, file: &str) {
        self.0.insert(snapshot.to_owned(), file.to_owned());
    }

    /// Forgets a snapshot.
    pub(crate) fn remove(&mut self, snapshot: &str) {
        self.0.remove(snapshot);
    }

    /// Snapshot ids and their forward files.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|(key, _)| *key != ACTIVE).map(|(key, file)| (key.as_str(), file.as_str()))
    }

    /// Every file it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }

    /// Reads the text of one; `volume` is the volume's file name.
    ///
    /// # Errors
    /// What is wrong with it: not a JSON object of strings, or a file that is not the volume's.
    pub(crate) fn parse(text: &[u8], volume: &str) -> Result<Self, String> {
        let map: BTreeMap<String, String> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match map.values().find(|file| !names::is_of(file, volume)) {
            Some(stranger) => Err(format!("it names {stranger:?}, which is not a file of this volume")),
            None => Ok(Self(map)),
        }
    }

    /// The text, as Python writes it.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from("{");
        for (key, value) in &self.0 {
            text.push_str(if text.len() == 1 { "\n " } else { ",\n " });
            quote(&mut text, key);
            text.push_str(": ");
            quote(&mut text, value);
        }
        text.push_str(if self.0.is_empty() { "}" } else { "\n}" });
        text
    }
}

/// A JSON string in ASCII, with Python's choice of escapes.
fn quote(text: &mut String, value: &str) {
    text.push('"');
    for unit in value.encode_utf16() {
        match char::from_u32(u32::from(unit)) {
            Some('"') => text.push_str("\\\""),
            Some('\\') => text.push_str("\\\\"),
            Some('\n') => text.push_str("\\n"),
            Some('\r') => text.push_str("\\r"),
            Some('\t') => text.push_str("\\t"),
            Some('\u{8}') => text.push_str("\\b"),
            Some('\u{c}') => text.push_str("\\f"),
            Some(plain @ ' '..='~') => text.push(plain),
            _ => write!(text, "\\u{unit:04x}").expect("writing to a String does not fail"),
        }
    }
    text.push('"');
}

impl Place<'_> {
    /// Reads the volume's `.info`; none is an empty one.
    ///
    /// # Errors
    /// `RemoteFSException` when it is damaged.
    pub(crate) async fn read_info(&self) -> Result<Info, Error> {
        let name = self.info_name();
        let Some(text) = self.read_small(&name).await? else { return Ok(Info::default()) };
        Info::parse(&text, &self.name).map_err(|reason| {
            let path = self.path(&name);
            let message = format!(
                "{} is damaged: {reason}. Restore it from the backing chain (qemu-img info) before working on the volume.",
                path.display()
            );
            Error::new(ErrorKind::Failed, scoria_model::FaultClass::RemoteFSException, message)
        })
    }

    /// Replaces the volume's `.info`: aside, synced, renamed, directory synced.
    ///
    /// # Errors
    /// Of the file calls.
    pub(crate) async fn write_info(&self, info: &Info) -> Result<(), Error> {
        debug_assert!(info.active().is_some(), "an .info file names the active file");
        let aside = names::info_aside(&self.name);
        self.remove(&aside).await?;
        self.write_small(&aside, info.to_text()).await?;
        self.core.faults.at("info.aside").await;
        self.publish(&aside, &self.info_name()).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_nonsense_brings_nothing_down(
            files in prop::collection::btree_map("[0-9a-f]{1,8}", "[0-9a-f-]{1,12}", 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut info = Info::default();
            info.set_active(VOLUME);
            for (snapshot, file) in &files {
                info.insert(snapshot, &format!("{VOLUME}.{file}"));
            }
            prop_assert_eq!(Info::parse(info.to_text().as_bytes(), VOLUME).unwrap(), info);
            drop(Info::parse(&noise, VOLUME));
        }
    }

    const VOLUME: &str = "volume-aa";

    #[test]
    fn the_bytes_are_those_of_python() {
        let mut info = Info::default();
        assert_eq!(info.to_text(), "{}");
        info.set_active("volume-aa.bb");
        info.insert("bb", "volume-aa.bb");
        assert_eq!(info.to_text(), "{\n \"active\": \"volume-aa.bb\",\n \"bb\": \"volume-aa.bb\"\n}");
        assert_eq!(Info::parse(info.to_text().as_bytes(), VOLUME).unwrap(), info);
        let mut odd = String::new();
        quote(&mut odd, "\"\\\n\u{1}\u{7f}é😀");
        assert_eq!(odd, r#""\"\\\n\u0001\u007f\u00e9\ud83d\ude00""#);
    }

    #[test]
    fn half_a_file_and_strange_files_are_refused() {
        for bad in ["", "{", "[]", "{\"active\": 1}", "{\"active\": \"../etc/passwd\"}", "{\"active\": \"volume-bb\"}"]
        {
            assert!(Info::parse(bad.as_bytes(), VOLUME).is_err(), "{bad}");
        }
    }
}
