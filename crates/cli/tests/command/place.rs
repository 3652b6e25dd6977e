//! Commands under the locks of a configuration.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::run::{Run, command, scoria, site, until};

/// A configuration, and a directory for what is run under its locks.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) conf: String,
}

impl Place {
    /// With lock files.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let conf = site(directory.path());
        Self { directory, conf }
    }

    /// With the locks of this service.
    pub(crate) fn on(backend_url: &str) -> Self {
        let place = Self::new();
        let text = std::fs::read_to_string(&place.conf).unwrap();
        std::fs::write(&place.conf, format!("{text}[coordination]\nbackend_url = {backend_url}\n")).unwrap();
        place
    }

    /// With the locks of a table in this database.
    pub(crate) fn in_table(connection: &str, lock_timeout: Duration) -> Self {
        let timeout = lock_timeout.as_secs();
        let place = Self::on(&format!("database://?lock_timeout={timeout}\n[database]\nconnection = {connection}"));
        assert_eq!(scoria(&["--config-file", &place.conf, "db", "sync"]).code, Some(0));
        place
    }

    /// `scoria locks` with these arguments.
    pub(crate) fn locks(&self, args: &[&str]) -> Run {
        scoria(&[&["--config-file", self.conf.as_str(), "locks"], args].concat())
    }

    pub(crate) fn under(&self, lock: &[&str], script: &str) -> Command {
        let args = [&["--config-file", &self.conf, "locks", "run"], lock, &["--", "sh", "-c", script]].concat();
        let mut command = command(&args);
        command.current_dir(self.directory.path());
        command
    }

    pub(crate) fn run(&self, lock: &[&str], script: &str) -> Run {
        self.under(lock, script).output().unwrap().into()
    }

    /// Starts a holder that has the lock for as long as it lives; the process that it started has noted its id.
    pub(crate) fn hold(&self, lock: &[&str]) -> Holder {
        let note = self.directory.path().join(format!("pid-{}", lock.join("")));
        // Of a holder before.
        let _ = std::fs::remove_file(&note);
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", note.display());
        let mut command = self.under(lock, &script);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("the holder runs", || note.exists());
        let grandchild = std::fs::read_to_string(&note).unwrap().trim().parse().unwrap();
        Holder { child: Some(child), grandchild: Pid::from_raw(grandchild) }
    }

    pub(crate) fn lock_file(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("cinder-{name}"))
    }
}

/// A `locks run` that holds its locks for as long as it lives.
pub(crate) struct Holder {
    pub(crate) child: Option<Child>,
    pub(crate) grandchild: Pid,
}

impl Holder {
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(id.try_into().unwrap()), signal).unwrap();
    }

    pub(crate) fn end(&mut self) -> Run {
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }

    pub(crate) fn grandchild_is_gone(&self) {
        until("the whole process group is gone", || is_gone(self.grandchild));
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.signal(Signal::SIGTERM);
            // It may have been stopped.
            self.signal(Signal::SIGCONT);
            self.end();
        }
    }
}

/// Gone, or dead and not yet buried by whoever inherited it.
pub(crate) fn is_gone(id: Pid) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).unwrap_or_default();
    kill(id, None) == Err(Errno::ESRCH) || stat.contains(") Z ")
}
