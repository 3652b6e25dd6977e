//! Running `scoria` and looking at what came of it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a run printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `scoria` with these arguments, untouched by the environment of whoever runs the tests.
pub(crate) fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scoria"));
    for variable in ["SCORIA_ENDPOINT", "OS_TOKEN", "HOME", "SCORIA_FENCING_TOKEN"] {
        command.env_remove(variable);
    }
    command.args(args);
    command
}

/// Runs it to its end.
pub(crate) fn scoria<S: AsRef<OsStr>>(args: &[S]) -> Run {
    command(args).output().unwrap().into()
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Run {
    /// It was a success, and said nothing on standard error.
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// It was a success, and printed JSON.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// It failed with this code and one line, which is returned.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("scoria: "), "{self:?}");
        self.stderr
    }
}

/// A configuration with SQLite and file locks in a directory, and one back end.
pub(crate) fn site(directory: &Path) -> String {
    let path = directory.join("cinder.conf");
    let text = format!(
        "[DEFAULT]\nstate_path = {dir}\nenabled_backends = one\n[one]\nvolume_driver = local\nlocal_path = {dir}/volumes\n",
        dir = directory.display()
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: not after 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
