//! `scoria locks`: who holds what, waiting for a lock, taking one away, and commands under locks.

use std::ffi::OsString;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::locks_at::{Line, Listed, Locks, SILENT, check_name};
use super::locks_run::{self, Signals, Under, ended_by};
use super::{guard, locks_break};
use crate::exit::{Exit, Failure, Result};
use crate::output::{Format, Progress, print};
use crate::target::Target;
use crate::wait::seconds;

/// What about locks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List who holds which lock and who waits for it.
    List,
    /// Show who holds one lock, since when and for which request, and who waits for it.
    Show {
        /// Name of the lock, without the prefix cinder-.
        name: String,
    },
    /// Wait until a lock is free.
    ///
    /// Somebody else may have it again a moment later: whoever is to have it himself uses locks run.
    Wait {
        /// Name of the lock, without the prefix cinder-.
        name: String,
        /// Give up after so many seconds (exit code 73). Default: wait as long as it takes.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        timeout: Option<Duration>,
    },
    /// Take a lock away from whoever holds it.
    ///
    /// For a holder that is gone but still has the lock, or that has to be overruled. Scoria's services stop the work under a lock
    /// that was taken from them; Python services do not notice. It is logged where the services log. With file:// it cannot be
    /// done: the kernel frees a lock when its holder ends.
    Break {
        /// Name of the lock, without the prefix cinder-.
        name: String,
        /// Break it without asking.
        #[arg(long, short)]
        yes: bool,
    },
    /// Run a command while holding one or more locks of the configuration's lock service.
    ///
    /// Several locks are taken in sorted order, as services do. The command finds their names in SCORIA_LOCK_NAME, separated by
    /// blanks, and the highest fencing token in SCORIA_FENCING_TOKEN, where the lock service has such tokens. Its exit code is
    /// passed on.
    ///
    /// The moment a lock is lost the command is killed with its process group, standard error says why, and the exit code is
    /// 75. Signals to scoria go to the command; if scoria itself is stopped or killed, so is the command. The locks are given back when
    /// the command ends: what it leaves running in the background runs on without them.
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// Names of the locks, without the prefix cinder-.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Hold the locks beside others who hold them shared. Where the lock service cannot do that they are held alone.
        #[arg(long)]
        shared: bool,
        /// Give up after so many seconds (exit code 73); 0: try once. Default: wait as long as it takes.
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<Duration>,
        /// The command, after a --.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Stops or kills the command of a `run` that was stopped or killed itself.
    #[command(hide = true)]
    Guard,
}

const RUN_EXAMPLES: &str = "\
Examples, with the lock service of /etc/cinder/cinder.conf:
  scoria locks run nightly --wait 0 -- /usr/local/bin/nightly
  scoria locks run 3f2b…-delete_volume -- qemu-img check volume-3f2b…
  scoria --config-file other.conf locks run a b -- sh -c 'echo $SCORIA_FENCING_TOKEN'";

/// Of a list.
const COLUMNS: [&str; 10] =
    ["name", "state", "mode", "seconds", "operation", "resource", "request_id", "host", "token", "instance"];
/// Of one holder or waiter.
const FIELDS: [&str; 10] =
    ["state", "mode", "since", "seconds", "operation", "resource", "request_id", "host", "instance", "token"];

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
    let listed = locks.list().await;
    locks.close().await;
    drop(progress);
    let Listed { lines, tells_of_others } = listed?;
    if lines.is_empty() && !tells_of_others {
        return Err(Failure::failed(SILENT));
    }
    target.format().list(&shown(&lines)?, &COLUMNS)?;
    if !tells_of_others {
        eprintln!("scoria: these are the locks of one service; {SILENT}");
    }
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
    let (holders, waiters) = (shown(&lock.holders)?, shown(&lock.waiters)?);
    if holders.is_empty() && waiters.is_empty() {
        return Err(lock.nobody(name));
    }
    match target.format() {
        Format::Json => Format::Json.one(&json!({"name": name, "holders": holders, "waiters": waiters}))?,
        Format::Table => {
            for (index, line) in holders.iter().chain(&waiters).enumerate() {
                if index > 0 {
                    print("\n")?;
                }
                Format::Table.fields(line, &FIELDS)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn shown(lines: &[Line]) -> Result<Vec<Value>> {
    lines.iter().map(Line::shown).collect()
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
