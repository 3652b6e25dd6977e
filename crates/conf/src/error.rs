//! What can be wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use crate::source::Origin;

/// Why the configuration cannot be used. Each names the place and the remedy; none contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file or directory named on the command line cannot be read.
    #[error("{}: cannot be read: {reason}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// A line is not INI.
    #[error("{}:{line}: {problem}", path.display())]
    Syntax {
        /// In which file.
        path: PathBuf,
        /// From 1.
        line: u32,
        /// What is wrong.
        problem: String,
    },
    /// An option's value is not allowed.
    #[error(transparent)]
    Value(Box<WrongValue>),
}

/// An option's value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct WrongValue {
    /// Where the value comes from.
    pub origin: Origin,
    /// The group as the operator wrote or would write it.
    pub group: String,
    /// The option.
    pub option: String,
    /// The value, or `***` for a secret.
    pub value: String,
    /// What is allowed.
    pub problem: String,
}

impl fmt::Display for WrongValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, group, option, value, problem } = self;
        match value.is_empty() && *origin == Origin::Default {
            true => write!(f, "[{group}] {option} is not set and {problem}"),
            false => write!(f, "{origin}: [{group}] {option} = {value}: {problem}"),
        }
    }
}
