//! `scoria config`: what a configuration says, and what is wrong with it.

use std::path::PathBuf;

use clap::Subcommand;
use scoria_conf::{Config, Finding, LoadArgs, Origin, Severity, Source};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Result};
use crate::output::{Format, print};
use crate::target::Target;

/// What about configurations.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a sample with every option, its meaning and its default.
    Sample,
    /// Name everything that is wrong or has no effect, with file and line.
    ///
    /// Exit code 1 when the service would not start with it. Lock service, broker and database are not asked.
    Check {
        /// Files to check together, later ones over earlier ones. Default: those that the service would read.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Name the options of Cinder that Scoria has no use for, too.
        #[arg(long)]
        all: bool,
    },
    /// Show every option in force and where its value comes from. Secrets are not shown.
    Show {
        /// Only what is not at its default.
        #[arg(long)]
        changed: bool,
    },
}

pub(crate) fn run(command: Command, target: &Target) -> Result {
    match command {
        Command::Sample => print(&scoria_conf::sample()).map(|()| Exit::Done),
        Command::Check { files, all } => check(files, all, target),
        Command::Show { changed } => show(&target.config()?, changed, target.format()),
    }
}

fn check(named: Vec<PathBuf>, all: bool, target: &Target) -> Result {
    let files = if named.is_empty() { target.load_args() } else { of_files(named) }.files()?;
    if files.is_empty() {
        return Err(Failure::usage("no configuration file found: name one, as in scoria config check cinder.conf"));
    }
    let least = if all { Severity::Info } else { Severity::Warning };
    let mut findings = scoria_conf::check(&files);
    findings.retain(|finding| finding.severity >= least);
    match target.format() {
        Format::Json => Format::Json.list(&findings.iter().map(finding).collect::<Vec<_>>(), &[])?,
        Format::Table => print(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?,
    }
    match findings.iter().filter(|finding| finding.severity == Severity::Error).count() {
        0 => Ok(Exit::Done),
        1 => Err(Failure::failed("the service would not start: 1 error")),
        errors => Err(Failure::failed(format!("the service would not start: {errors} errors"))),
    }
}

fn of_files(files: Vec<PathBuf>) -> LoadArgs {
    LoadArgs { sources: files.into_iter().map(Source::File).collect(), ..LoadArgs::default() }
}

fn finding(finding: &Finding) -> Value {
    json!({
        "file": finding.file,
        "line": finding.line,
        "severity": match finding.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        },
        "group": finding.group,
        "option": finding.option,
        "message": finding.message,
    })
}

fn show(config: &Config, changed: bool, format: Format) -> Result {
    let mut shown = config.show()?;
    shown.retain(|value| !changed || value.origin != Origin::Default);
    let line = |value: &scoria_conf::Shown| {
        json!({
            "group": value.group,
            "option": value.option,
            "value": value.value,
            "origin": value.origin.to_string(),
        })
    };
    format.list(&shown.iter().map(line).collect::<Vec<_>>(), &["group", "option", "value", "origin"])?;
    Ok(Exit::Done)
}
