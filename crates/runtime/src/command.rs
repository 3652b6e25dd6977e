//! External commands with deadline, process group, bounded output and root helper.

/// A command to run.
#[derive(Debug, Clone)]
pub struct Command;

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Output;

/// Runs commands.
#[derive(Debug, Clone)]
pub struct Executor;

/// A command that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("unexpected error while running command")]
pub struct CommandError;
