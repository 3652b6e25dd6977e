//! `scoria-testkit run -- COMMAND…` starts one MariaDB, PostgreSQL and RabbitMQ for a whole test run, tells the command where
//! they are (the `shared()` constructors look there), runs it, stops the servers and passes its exit status on.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let ([verb, dashes, program, rest @ ..], true) = (&args[..], args.len() > 2) else {
        eprintln!("usage: scoria-testkit run -- COMMAND [ARGUMENT]…");
        return Ok(ExitCode::from(2));
    };
    if verb != "run" || dashes != "--" {
        eprintln!("usage: scoria-testkit run -- COMMAND [ARGUMENT]…");
        return Ok(ExitCode::from(2));
    }
    let started = Instant::now();
    let servers = scoria_testkit::SharedServers::start().await?;
    eprintln!("scoria-testkit: MariaDB, PostgreSQL and RabbitMQ are up after {:.1?}", started.elapsed());

    let mut child = tokio::process::Command::new(program).args(rest).envs(servers.environment()?).spawn();
    let child = child.as_mut().map_err(|error| anyhow::anyhow!("cannot run {}: {error}", program.display()))?;
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.context("cannot wait for the command")?,
            // The terminal sends an interrupt to the command as well.
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {
                if let Some(pid) = child.id() {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::SIGTERM);
                }
            }
        }
    };
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
