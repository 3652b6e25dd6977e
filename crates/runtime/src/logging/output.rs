//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::LogError;

/// A file, standard error, or both.
#[derive(Debug)]
pub(super) struct Output {
    file: Option<(PathBuf, Mutex<File>)>,
    stderr: bool,
}

impl Output {
    pub(super) fn open(path: Option<PathBuf>, stderr: bool) -> Result<Self, LogError> {
        let Some(path) = path else { return Ok(Self { file: None, stderr: true }) };
        match append(&path) {
            Ok(file) => Ok(Self { file: Some((path, Mutex::new(file))), stderr }),
            Err(source) => Err(LogError::File { path, source }),
        }
    }

    /// A line that the file does not take (disk full, directory gone) goes to standard error; one that nobody takes is lost:
    /// there is nobody left to tell.
    pub(super) fn write(&self, line: &str) {
        let written = self.file.as_ref().is_some_and(|(path, file)| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            write_to(path, &mut file, line).is_ok()
        });
        if self.stderr || !written {
            let _ = io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

/// Opens the file afresh when somebody has moved it away, as oslo.log's watched file does: log rotation needs no signal.
fn write_to(path: &Path, file: &mut File, line: &str) -> io::Result<()> {
    let open = file.metadata()?;
    let same = std::fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()));
    if !same {
        *file = append(path)?;
    }
    file.write_all(line.as_bytes())
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_opened_afresh() {
        let path = std::env::temp_dir().join(format!("scoria-log-{}", std::process::id()));
        let moved = path.with_extension("1");
        let output = Output::open(Some(path.clone()), false).unwrap();
        output.write("one\n");
        std::fs::rename(&path, &moved).unwrap();
        output.write("two\n");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(moved).unwrap();
    }

    #[test]
    fn a_full_disk_does_not_stop_the_service() {
        let output = Output::open(Some("/dev/full".into()), false).unwrap();
        output.write("this line goes to standard error\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Output::open(Some("/nonexistent/scoria.log".into()), false).unwrap_err();
        assert!(error.to_string().starts_with("log file /nonexistent/scoria.log: "), "{error}");
    }
}
