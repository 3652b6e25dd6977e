//! Certificates for tests.

use std::path::Path;
use std::process::Command;

use scoria_testkit::program;

/// `openssl` with these arguments, blanks between them, in this directory.
pub(crate) fn openssl(directory: &Path, arguments: &str) {
    let mut command = Command::new(program("openssl", "openssl").unwrap());
    let out = command.args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(out.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&out.stderr));
}
