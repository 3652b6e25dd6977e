//! One volume on one share, during one operation: every effect on the share goes through here.
//!
//! Before each effect it is asked whether the operation may still go on. File calls run on the share's own threads and
//! carry the fence with them: a call that hangs in the kernel holds it until it is back, so its late effect cannot meet
//! somebody else's. What we may not do as ourselves is done by the root helper (`nas_secure_file_operations = false` only),
//! with commands that rootwrap's filters for the volume service let through.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scoria_runtime::{Command, Deadline, Output};

use super::core::Core;
use super::disk::{self, Stat};
use super::names;
use super::shares::{CALL_TIMEOUT, Share};
use crate::{Error, ErrorKind, Work};

/// A volume's place on a share.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    pub(crate) core: &'a Core,
    pub(crate) share: Arc<Share>,
    /// The volume's file name.
    pub(crate) name: String,
    pub(crate) work: &'a Work,
    /// The fence, once it is held.
    pub(crate) fence: Option<Arc<OwnedFd>>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(core: &'a Core, share: Arc<Share>, name: String, work: &'a Work) -> Self {
        Self { core, share, name, work, fence: None }
    }

    /// The path of a file on the share.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.share.root.join(name)
    }

    pub(crate) fn info_name(&self) -> String {
        names::info(&self.name)
    }

    /// Where things of this volume are built.
    pub(crate) fn aside(&self) -> String {
        names::aside(&self.name)
    }

    /// Whether the operation may go on.
    ///
    /// # Errors
    /// `Cancelled` when it was, or when its time is up.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.work.cancel.is_cancelled() || self.work.deadline.has_passed() { Err(self.stopped()) } else { Ok(()) }
    }

    fn stopped(&self) -> Error {
        Error::driver(ErrorKind::Cancelled, format!("work on {} was stopped before it was done", self.name))
    }

    /// Runs one file call on the share's threads, within the share's time for one call.
    pub(crate) async fn call<T, F>(&self, call: F) -> Result<io::Result<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.call_until(Deadline::after(CALL_TIMEOUT), call).await
    }

    async fn call_until<T, F>(&self, deadline: Deadline, call: F) -> Result<io::Result<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.check()?;
        let fence = self.fence.clone();
        let call = move || {
            let result = call();
            drop(fence);
            result
        };
        tokio::select! {
            biased;
            answer = self.share.pool.run_until(deadline, call) => Ok(answer?),
            () = self.work.cancel.cancelled() => Err(self.stopped()),
            () = self.work.deadline.wait() => Err(self.stopped()),
        }
    }

    /// Whether the root helper may do what we may not.
    pub(crate) fn has_root(&self) -> bool {
        self.core.executor.has_root_helper() && !self.core.security().operations
    }

    /// Runs a file call as ourselves. `None`: only root may do it, and there is a helper for that.
    pub(crate) async fn as_ourselves<T, F>(&self, what: &str, name: &str, call: F) -> Result<Option<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let path = self.path(name);
        let result = self.call(move || call(&path)).await?;
        self.unless_root(what, name, result)
    }

    fn unless_root<T>(&self, what: &str, name: &str, result: io::Result<T>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.has_root() => Ok(None),
            Err(error) => Err(Error::io(what, &self.path(name), &error)),
        }
    }

    async fn as_root(&self, program: &str, args: Vec<OsString>) -> Result<Output, Error> {
        self.run(Command::new(program).args(args).as_root(true)).await
    }

    /// Runs a command that the fence outlives us with.
    pub(crate) async fn run(&self, command: Command) -> Result<Output, Error> {
        self.check()?;
        let mut command = command.deadline(self.work.deadline);
        if let Some(fence) = &self.fence {
            command = command.keep_fd(Arc::clone(fence));
        }
        let output = self.core.executor.run(&command, &self.work.cancel).await?;
        // A command that ended just when the lock was lost is not followed by another step.
        self.check()?;
        Ok(output)
    }

    pub(crate) async fn stat(&self, name: &str) -> Result<Option<Stat>, Error> {
        let path = self.path(name);
        self.call(move || disk::stat(&path)).await?.map_err(|error| Error::io("look at", &self.path(name), &error))
    }

    /// The first bytes of a file.
    pub(crate) async fn read_head(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        if let Some(head) = self.as_ourselves("read", name, move |path| disk::read_head(path, limit)).await? {
            return Ok(head);
        }
        let input = prefixed("if=", &self.path(name));
        let args =
            vec![input, "bs=65536".into(), format!("count={}", limit.div_ceil(65536)).into(), "status=none".into()];
        Ok(Some(self.as_root("dd", args).await?.stdout))
    }

    /// A small file, whole.
    pub(crate) async fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read_head(name, 1 << 20).await
    }

    /// Removes a file; none is fine.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        if self.as_ourselves("remove", name, disk::remove).await?.is_none() {
            self.as_root("rm", vec!["-f".into(), self.path(name).into()]).await?;
        }
        Ok(())
    }

    /// Makes a file of `length` bytes without content.
    pub(crate) async fn create_sparse(&self, name: &str, length: u64) -> Result<(), Error> {
        if self.as_ourselves("create", name, move |path| disk::create_sparse(path, length)).await?.is_none() {
            self.as_root("truncate", vec!["-s".into(), length.to_string().into(), self.path(name).into()]).await?;
        }
        Ok(())
    }

    /// Makes a file with this content.
    pub(crate) async fn write_small(&self, name: &str, content: String) -> Result<(), Error> {
        let write = {
            let content = content.clone();
            move |path: &Path| disk::create_with(path, content.as_bytes())
        };
        if self.as_ourselves("write", name, write).await?.is_none() {
            // Root makes it, everybody may then write it (the way of the Python driver); publishing sets it right.
            let path = OsString::from(self.path(name));
            self.as_root("truncate", vec!["-s".into(), "0".into(), path.clone()]).await?;
            self.as_root("chmod", vec!["ugo+rw".into(), path]).await?;
            let write = move |path: &Path| disk::create_with(path, content.as_bytes());
            let path = self.path(name);
            let error_path = path.clone();
            self.call(move || write(&path)).await?.map_err(|error| Error::io("write", &error_path, &error))?;
        }
        Ok(())
    }

    /// Grows a raw file, never shrinks it.
    pub(crate) async fn grow(&self, name: &str, length: u64) -> Result<(), Error> {
        if self.as_ourselves("grow", name, move |path| disk::grow(path, length)).await?.is_none() {
            self.as_root("truncate", vec!["-s".into(), format!(">{length}").into(), self.path(name).into()]).await?;
        }
        Ok(())
    }

    /// Gives a finished file its permissions, brings it to the disk and then gives it its final name.
    pub(crate) async fn publish(&self, aside: &str, name: &str) -> Result<(), Error> {
        let access = self.core.security().access();
        let path = self.path(aside);
        // Bringing a large copy to a slow disk takes as long as it takes; the operation's own deadline bounds it.
        let finished = {
            let path = path.clone();
            self.call_until(Deadline::NEVER, move || disk::finish(&path, access)).await?
        };
        if self.unless_root("finish", aside, finished)?.is_none() {
            self.as_root("chmod", vec![access.chmod().into(), path.clone().into()]).await?;
            let sync =
                vec!["if=/dev/null".into(), prefixed("of=", &path), "conv=notrunc,fsync".into(), "status=none".into()];
            self.as_root("dd", sync).await?;
        }
        let to = self.path(name);
        let rename = move |from: &Path| disk::rename(from, &to);
        if self.as_ourselves("rename", aside, rename).await?.is_none() {
            self.as_root("mv", vec!["-f".into(), self.path(aside).into(), self.path(name).into()]).await?;
        }
        Ok(())
    }
}

/// An argument such as `if=<path>`; paths need not be UTF-8.
fn prefixed(prefix: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(prefix);
    argument.push(path);
    argument
}
