//! Where server programs are, and which Debian package brings each.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Directories that hold server programs on Debian although they are not on every user's `PATH`.
const ALSO: &[&str] = &["/usr/sbin", "/sbin", "/usr/lib/rabbitmq/bin"];

/// The path of a program.
///
/// # Errors
/// It is not installed: the error names the Debian package that brings it.
pub fn program(name: &str, debian_package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ALSO.iter().map(PathBuf::from).chain(std::env::split_paths(&path)).map(|dir| dir.join(name));
    found.into_iter().find(|file| file.is_file()).with_context(|| {
        format!("{name} is not installed: apt-get install {debian_package} (or run scripts/setup test)")
    })
}

/// The newest `/usr/lib/postgresql/*/bin`, where Debian keeps `initdb` and `postgres`.
///
/// # Errors
/// PostgreSQL is not installed.
pub(crate) fn postgres_bin() -> Result<PathBuf> {
    let version = |dir: &PathBuf| dir.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    versions
        .filter(|dir| dir.join("bin/initdb").is_file())
        .max_by_key(version)
        .map(|dir| dir.join("bin"))
        .context("initdb is not installed: apt-get install postgresql (or run scripts/setup test)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = program("no-such-server", "no-such-package").unwrap_err().to_string();
        assert!(error.contains("no-such-server is not installed") && error.contains("no-such-package"), "{error}");
        assert!(program("sh", "dash").unwrap().is_file());
    }
}
