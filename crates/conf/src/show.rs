//! The effective configuration and where each value comes from.

use std::fmt;

use crate::config::Config;
use crate::error::Error;
use crate::options::{self, OptionSpec};
use crate::source::Origin;
use crate::types::Value;

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The group, or a back end's section.
    pub group: String,
    /// The option.
    pub option: String,
    /// Its value; `***` for a secret, empty for none.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// `[group] option = value    (origin)`.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, option, value, origin } = self;
        write!(f, "[{group}] {option} = {value}    ({origin})")
    }
}

impl Config {
    /// Every option in force. Those of back ends are shown for each back end, with what they take from
    /// `[backend_defaults]`.
    ///
    /// # Errors
    /// None for a configuration that was loaded: each value has been read before.
    pub fn show(&self) -> Result<Vec<Shown>, Error> {
        let mut all = Vec::new();
        for spec in options::all() {
            for section in self.resolver.sections(spec) {
                if spec.group == options::BACKEND_DEFAULTS && section == options::BACKEND_DEFAULTS {
                    continue;
                }
                let resolver = if spec.mutable { &self.mutable } else { &self.resolver };
                let resolved = resolver.get(spec, section)?;
                all.push(Shown {
                    group: section.to_owned(),
                    option: spec.name.to_owned(),
                    value: shown(spec, resolved.value.as_ref()),
                    origin: resolved.origin,
                });
            }
        }
        Ok(all)
    }
}

/// A value for everybody to see.
pub(crate) fn shown(spec: &OptionSpec, value: Option<&Value>) -> String {
    match value {
        Some(_) if spec.secret => "***".to_owned(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}
