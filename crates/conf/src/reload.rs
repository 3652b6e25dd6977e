//! What SIGHUP changes (`oslo_config/cfg.py: ConfigOpts.mutate_config_files`).

use crate::config::{Config, standalone_texts};
use crate::error::Error;
use crate::options::{self, OptionGroup, OptionSpec};
use crate::resolve::{Reader, Resolver, names};
use crate::show::shown;
use crate::source::Texts;
use crate::types::Kind;

/// A mutable option that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its group.
    pub group: String,
    /// Its name.
    pub option: String,
    /// Its value until now; `***` for a secret, empty for none.
    pub old: String,
    /// Its value from now on.
    pub new: String,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, option, old, new } = self;
        write!(f, "Option {group}.{option} changed from [{old}] to [{new}]")
    }
}

/// What a reload found.
#[derive(Debug)]
pub struct Reload {
    /// The configuration from now on: the next reload compares with it.
    pub config: Config,
    /// Mutable options that have changed; their `Display` is the log line.
    pub changed: Vec<Change>,
    /// `Ignoring change to immutable option GROUP.NAME` lines.
    pub ignored: Vec<String>,
}

impl Config {
    /// Reads the files again and takes over what may change while the service runs: `debug` and
    /// `log_config_append`.
    ///
    /// # Errors
    /// Files that cannot be read, and mutable options with a wrong value; nothing has changed then.
    pub fn reload(&self) -> Result<Reload, Error> {
        let texts = Texts::load(&self.args, self.args.standalone.as_deref().map(standalone_texts).unwrap_or_default())?;
        let fresh = Resolver { texts, backends: self.resolver.backends.clone() };
        let (mut changed, mut ignored) = (Vec::new(), Vec::new());
        for spec in options::all() {
            for section in self.resolver.sections(spec) {
                if spec.mutable {
                    let shown = |resolver: &Resolver| Ok(shown(spec, resolver.get(spec, section)?.value.as_ref()));
                    let (old, new) = (shown(&self.mutable)?, shown(&fresh)?);
                    if old != new {
                        changed.push(Change { group: section.to_owned(), option: spec.name.to_owned(), old, new });
                    }
                } else if texts_of(&self.resolver, spec, section) != texts_of(&fresh, spec, section) {
                    ignored.push(format!("Ignoring change to immutable option {section}.{}", spec.name));
                }
            }
        }
        let mut config = self.clone();
        let reader = Reader::new(&fresh, None);
        for spec in options::LogOptions::specs() {
            match spec.name {
                "debug" => config.log.debug = reader.read(spec)?,
                "log_config_append" => config.log.log_config_append = reader.read(spec)?,
                _ => {}
            }
        }
        config.mutable = fresh;
        Ok(Reload { config, changed, ignored })
    }
}

fn texts_of(resolver: &Resolver, spec: &OptionSpec, section: &str) -> Vec<String> {
    let found = resolver.texts.get(&names(spec, section), spec.kind == Kind::MultiStr);
    found.map(|(texts, _)| texts.into_iter().map(|(text, _)| text).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{LoadArgs, Source};

    #[test]
    fn only_debug_changes_and_the_rest_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cinder.conf");
        let write = |text: &str| {
            let text = format!("[DEFAULT]\nenabled_backends = a\n{text}\n[a]\nvolume_driver = local\n");
            std::fs::write(&file, text).unwrap();
        };
        write("debug = false\nhost = one");
        let args = LoadArgs { sources: vec![Source::File(file.clone())], ..LoadArgs::default() };
        let config = Config::load(&args).unwrap();

        write("debug = true\nhost = two");
        let reload = config.reload().unwrap();
        assert_eq!(reload.changed.len(), 1);
        assert_eq!(reload.changed[0].to_string(), "Option DEFAULT.debug changed from [False] to [True]");
        assert_eq!(reload.ignored, ["Ignoring change to immutable option DEFAULT.host"]);
        assert!(reload.config.log.debug);
        assert_eq!(reload.config.default.host, "one");

        let again = reload.config.reload().unwrap();
        assert!(again.changed.is_empty(), "a change is told once");
        assert_eq!(again.ignored.len(), 1, "what the running service does not follow is told each time");

        write("debug = maybe");
        assert!(again.config.reload().unwrap_err().to_string().contains("[DEFAULT] debug = maybe"));
        std::fs::remove_file(&file).unwrap();
        assert!(again.config.reload().is_err(), "and the running configuration stays");
    }
}
