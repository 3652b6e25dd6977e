//! Exit codes, and the failures that lead to them.

use std::fmt;
use std::process::ExitCode;

/// How the command ends; the numbers are promised in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: failed.
    Failed,
    /// 2: wrong usage, as clap has it.
    Usage,
    /// 3: there is no such resource.
    NotFound,
    /// 4: the resource ended in an error state.
    ErrorState,
    /// 69 (`EX_UNAVAILABLE`): something that we need is not there now.
    Unavailable,
    /// 73 (`EX_CANTCREAT`): the lock could not be had in time.
    LockBusy,
    /// 75 (`EX_TEMPFAIL`): the lock was lost.
    LockLost,
    /// What the command under a lock ended with.
    Of(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::ErrorState => 4,
            Exit::Unavailable => 69,
            Exit::LockBusy => 73,
            Exit::LockLost => 75,
            Exit::Of(code) => code,
        })
    }
}

/// Why the command did not do what was asked: one line with the remedy, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

/// What commands return.
pub(crate) type Result<T = Exit> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }
}

/// One line, whatever the texts of others look like.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.message.lines().map(str::trim).filter(|line| !line.is_empty());
        for (index, line) in lines.enumerate() {
            write!(f, "{}{line}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl From<scoria_conf::Error> for Failure {
    fn from(error: scoria_conf::Error) -> Self {
        match error {
            // One of perhaps several.
            scoria_conf::Error::Value(_) => {
                Self::failed(format!("{error} (scoria config check names everything that is wrong)"))
            }
            other => Self::failed(other.to_string()),
        }
    }
}

impl From<scoria_db::Error> for Failure {
    fn from(error: scoria_db::Error) -> Self {
        Self::new(of_database(&error), described(&error, error.to_string()))
    }
}

impl From<scoria_coordination::Error> for Failure {
    fn from(error: scoria_coordination::Error) -> Self {
        Self::new(of_locks(&error), error.to_string())
    }
}

/// Those who put parts together say what they were about, and pass on whose error it was.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let message = format!("{error:#}");
        if let Some(of) = error.downcast_ref::<scoria_db::Error>() {
            return Self::new(of_database(of), described(of, message));
        }
        Self::new(error.downcast_ref().map_or(Exit::Failed, of_locks), message)
    }
}

fn of_database(error: &scoria_db::Error) -> Exit {
    match error {
        scoria_db::Error::NotFound { .. } => Exit::NotFound,
        scoria_db::Error::Unavailable(_) | scoria_db::Error::Busy(_) => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

fn described(error: &scoria_db::Error, message: String) -> String {
    match error {
        scoria_db::Error::Unavailable(_) => {
            format!("{message}: see that the server of [database] connection runs and can be reached")
        }
        _ => message,
    }
}

fn of_locks(error: &scoria_coordination::Error) -> Exit {
    match error {
        scoria_coordination::Error::Busy { .. } => Exit::LockBusy,
        scoria_coordination::Error::Lost { .. } => Exit::LockLost,
        scoria_coordination::Error::Unavailable(_) => Exit::Unavailable,
        scoria_coordination::Error::Name { .. } => Exit::Usage,
        scoria_coordination::Error::Config(_)
        | scoria_coordination::Error::Unsupported(_)
        | scoria_coordination::Error::Closed => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_and_knows_whose_it_was() {
        assert_eq!(Failure::failed("a\n  b\n\nc").to_string(), "a b c");
        let busy = scoria_coordination::Error::Busy { name: "x".to_owned(), by: String::new() };
        assert_eq!(Failure::from(busy.clone()).exit, Exit::LockBusy);
        assert_eq!(Failure::from(anyhow::Error::from(busy)).exit, Exit::LockBusy);
        let missing = scoria_db::Error::NotFound { what: "volume", id: "x".to_owned() };
        assert_eq!(Failure::from(anyhow::Error::from(missing)).exit, Exit::NotFound);
        assert_eq!(Failure::from(anyhow::anyhow!("x")).exit, Exit::Failed);
    }
}
