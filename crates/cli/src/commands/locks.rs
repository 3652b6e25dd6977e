//! `scoria locks`: who holds what, waiting for a lock, taking one away, and commands under locks.

use std::ffi::OsString;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::locks_at::{Line, Locks, check_name};
use super::locks_run::{self, Signals, Under, ended_by};
use super::{guard, locks_break};
use crate::exit::{Exit, Result};
use crate::output::{Format, Progress, print};
use crate::target::Target;
use crate::wait::seconds;

/// What about locks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Who holds and who waits. With a configuration its lock service is asked, without one the service at the admin port; so
    /// for `show`, `wait` and `break`.
    List,
    /// Who holds one lock, since when and for which request, and who waits for it.
    Show {
        /// Name of the lock, without the prefix cinder-.
        name: String,
    },
    /// Wait until a lock is free.
    Wait {
        /// Name of the lock, without the prefix cinder-.
        name: String,
        /// Wait for at most so many seconds (exit code 73). Without it: as long as it takes.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        timeout: Option<Duration>,
    },
    /// Take a lock away from whoever holds it, where the lock service can do that.
    ///
    /// For a holder that is gone but still named, or that has to be overruled. Scoria's services stop the work under a lock
    /// that was taken from them; Python services do not notice. It is logged where the configuration's services log.
    Break {
        /// Name of the lock, without the prefix cinder-.
        name: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Run a command under one or more locks of the configuration's lock service.
    ///
    /// Several locks are taken in sorted order, as services do. The command has their names in SCORIA_LOCK_NAME, with blanks
    /// between them, and the highest fencing token in SCORIA_FENCING_TOKEN where the lock service has such tokens. Its exit
    /// code is passed on. The moment a lock is lost, the command is killed with its process group, and the exit code is 75.
    /// Signals to scoria go to the command; if scoria itself is killed, so is the command.
    Run {
        /// Names of the locks, without the prefix cinder-.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Beside other shared holders, where the lock service can do that.
        #[arg(long)]
        shared: bool,
        /// Wait for the locks for at most so many seconds (exit code 73), 0: try once. Without it: as long as it takes.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<Duration>,
        /// The command, after a --.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Kills the command of a `run` that was killed itself.
    #[command(hide = true)]
    Guard,
}

const COLUMNS: [&str; 9] =
    ["name", "mode", "held", "operation", "resource", "request_id", "host", "instance", "seconds"];

pub(crate) async fn run(command: Command, target: &Target) -> Result {
    match command {
        Command::List => list(target).await,
        Command::Show { name } => show(&name, target).await,
        Command::Wait { name, timeout } => wait(&name, timeout, target).await,
        Command::Break { name, yes } => locks_break::run(&name, yes, target).await,
        Command::Run { names, shared, wait, command } => {
            let config = target.config()?;
            locks_run::run(&config, Under { names, shared, wait }, command).await
        }
        Command::Guard => guard::run(),
    }
}

async fn list(target: &Target) -> Result {
    let progress = Progress::start("asking for locks");
    let locks = Locks::open(target).await?;
    let lines = locks.list().await;
    locks.close().await;
    drop(progress);
    target.format().list(&lines?, &COLUMNS)?;
    Ok(Exit::Done)
}

async fn show(name: &str, target: &Target) -> Result {
    check_name(name)?;
    let progress = Progress::start("asking for locks");
    let locks = Locks::open(target).await?;
    let lock = locks.of(name).await;
    locks.close().await;
    drop(progress);
    let lock = lock?;
    let shown = |lines: &[Line]| lines.iter().map(Line::with_since).collect::<Result<Vec<_>>>();
    let (holders, waiters) = (shown(&lock.holders)?, shown(&lock.waiters)?);
    match target.format() {
        Format::Json => Format::Json.one(&json!({"name": name, "holders": holders, "waiters": waiters}))?,
        Format::Table => {
            for (index, line) in holders.iter().chain(&waiters).enumerate() {
                if index > 0 {
                    print("\n")?;
                }
                Format::Table.one(line)?;
            }
        }
    }
    Ok(Exit::Done)
}

async fn wait(name: &str, timeout: Option<Duration>, target: &Target) -> Result {
    check_name(name)?;
    let mut signals = Signals::new()?;
    let _progress = Progress::start(format!("waiting for lock '{name}'"));
    let locks = Locks::open(target).await?;
    let ended = tokio::select! {
        free = locks.until_free(name, timeout) => free.map(|()| Exit::Done),
        signal = signals.next() => Ok(ended_by(signal as i32)),
    };
    locks.close().await;
    ended
}
