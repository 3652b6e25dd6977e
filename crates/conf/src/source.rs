//! Where values come from, and which one wins: command line, then environment, then files (the later wins), then what is
//! built in for stand-alone mode (`oslo_config/cfg.py: ConfigOpts._do_get`).
//!
//! One difference, on purpose: in Python an option that has a command-line form and also stands in a file changes places with the environment,
//! depending on where it was found. Here the order is always the documented one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::ini;

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// On the command line.
    CommandLine,
    /// In this environment variable.
    Environment(String),
    /// In this file, at this line.
    File(Arc<Path>, u32),
    /// Built in for stand-alone mode.
    Standalone,
    /// Nowhere: the option's default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Standalone => f.write_str("stand-alone default"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A `--config-file` or `--config-dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One file.
    File(PathBuf),
    /// All `*.conf` of a directory, by name.
    Dir(PathBuf),
}

/// What the configuration is loaded from. The default is: nothing at all.
#[derive(Clone, Default)]
pub struct LoadArgs {
    /// `--config-file` and `--config-dir`, in the order of the command line.
    pub sources: Vec<Source>,
    /// Directories searched, in order, for `cinder.conf`, `cinder-volume.conf` and their `.conf.d`. Files are searched when no
    /// `--config-file` is given, directories when no `--config-dir` is; what is found comes before [`LoadArgs::sources`].
    pub search: Vec<PathBuf>,
    /// Options of the command line: group, name, value.
    pub overrides: Vec<(String, String, String)>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Stand-alone mode with this state directory: its defaults stand below everything else.
    pub standalone: Option<PathBuf>,
}

/// Overrides and environment may hold passwords.
impl fmt::Debug for LoadArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadArgs").field("sources", &self.sources).field("search", &self.search).finish_non_exhaustive()
    }
}

impl LoadArgs {
    /// This process's environment and the places where Cinder looks for its configuration.
    #[must_use]
    pub fn from_process() -> Self {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        Self { search: search_path(&environment), environment, ..Self::default() }
    }

    /// The files to read, in order; the later wins.
    ///
    /// # Errors
    /// [`Error::Unreadable`] for a missing or closed directory. Files are tried when they are read.
    pub fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        if !self.sources.iter().any(|source| matches!(source, Source::File(_))) {
            files.extend(self.found(".conf"));
        }
        if !self.sources.iter().any(|source| matches!(source, Source::Dir(_))) {
            for dir in self.found(".conf.d") {
                files.extend(files_of(&dir)?);
            }
        }
        for source in &self.sources {
            match source {
                Source::File(path) => files.push(self.expand(path)),
                Source::Dir(path) => files.extend(files_of(&self.expand(path))?),
            }
        }
        Ok(files)
    }

    /// The first of each default name along the search path.
    fn found(&self, extension: &str) -> Vec<PathBuf> {
        let first = |name: &str| {
            let candidates = self.search.iter().map(|dir| dir.join(format!("{name}{extension}")));
            candidates.into_iter().find(|path| path.exists())
        };
        ["cinder", "cinder-volume"].into_iter().filter_map(first).collect()
    }

    /// `~` is the home directory.
    fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), self.environment.get("HOME")) {
            (Ok(rest), Some(home)) => Path::new(home).join(rest),
            _ => path.to_path_buf(),
        }
    }
}

/// `oslo_config/cfg.py: _get_config_dirs` for the project `cinder`.
fn search_path(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(home) = environment.get("HOME") {
        dirs.extend([Path::new(home).join(".cinder"), PathBuf::from(home)]);
    }
    dirs.extend(["/etc/cinder", "/etc"].map(PathBuf::from));
    for snap in ["SNAP_COMMON", "SNAP"] {
        dirs.extend(environment.get(snap).map(|dir| Path::new(dir).join("etc/cinder")));
    }
    dirs
}

/// Its `*.conf`, by name; hidden ones do not count.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |error: std::io::Error| Error::Unreadable { path: dir.to_path_buf(), reason: error.to_string() };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".conf") && !name.starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one file.
///
/// # Errors
/// [`Error::Unreadable`], also for text that is not UTF-8; [`Error::Syntax`].
pub(crate) fn read(path: &Path) -> Result<ini::Ini, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Unreadable { path: path.to_path_buf(), reason: error.to_string() })?;
    ini::parse(&text).map_err(|error| Error::Syntax {
        path: path.to_path_buf(),
        line: error.line,
        problem: error.problem.to_owned(),
    })
}

/// A text and where it stands.
pub(crate) type Located = (String, Origin);

/// All texts of all places, before they mean anything.
#[derive(Clone, Default)]
pub(crate) struct Texts {
    command_line: HashMap<(String, String), String>,
    environment: BTreeMap<String, String>,
    /// From the lowest to the highest: what is built in, then each file.
    layers: Vec<HashMap<(String, String), Vec<Located>>>,
}

/// Any of them may be a password.
impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl Texts {
    /// Reads everything that `args` name, over what is `built_in` (group, name, text).
    pub(crate) fn load(args: &LoadArgs, built_in: Vec<(&str, &str, String)>) -> Result<Self, Error> {
        let layer = |entries: Vec<((String, String), Located)>| {
            let mut layer: HashMap<_, Vec<Located>> = HashMap::new();
            for (key, located) in entries {
                layer.entry(key).or_default().push(located);
            }
            layer
        };
        let built_in =
            built_in.into_iter().map(|(g, n, text)| ((g.to_owned(), n.to_owned()), (text, Origin::Standalone)));
        let mut layers = vec![layer(built_in.collect())];
        for path in args.files()? {
            let path: Arc<Path> = path.into();
            let entries = read(&path)?.entries.into_iter().map(|entry| {
                ((ini::normalized(&entry.section), entry.key), (entry.value, Origin::File(path.clone(), entry.line)))
            });
            layers.push(layer(entries.collect()));
        }
        let command_line = args.overrides.iter().map(|(g, n, text)| ((ini::normalized(g), n.clone()), text.clone()));
        Ok(Self { command_line: command_line.collect(), environment: args.environment.clone(), layers })
    }

    /// The texts of an option; the last one counts unless it is a `multi` one. `names` are its names in order of preference:
    /// the first one's group names the environment variable. A later file's old name wins over an earlier file's new name.
    pub(crate) fn get(&self, names: &[(String, String)], multi: bool) -> Option<(Vec<Located>, usize)> {
        let keys: Vec<_> = names.iter().map(|(group, name)| (ini::normalized(group), name.clone())).collect();
        let (group, name) = names.first()?;
        if let Some(text) = keys.first().and_then(|key| self.command_line.get(key)) {
            return Some((vec![(text.clone(), Origin::CommandLine)], 0));
        }
        let variable = format!("OS_{}__{}", group.to_uppercase(), name.to_uppercase());
        if let Some(text) = self.environment.get(&variable) {
            return Some((vec![(text.clone(), Origin::Environment(variable))], 0));
        }
        let mut found: Option<(Vec<Located>, usize)> = None;
        for layer in self.layers.iter().rev() {
            for (index, key) in keys.iter().enumerate() {
                let Some(texts) = layer.get(key) else { continue };
                if !multi {
                    return Some((texts.last().cloned().into_iter().collect(), index));
                }
                let (all, _) = found.get_or_insert_with(|| (Vec::new(), index));
                all.splice(0..0, texts.iter().cloned());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn get(args: &LoadArgs, group: &str, name: &str) -> Option<Located> {
        let (mut texts, _) =
            Texts::load(args, Vec::new()).unwrap().get(&[(group.to_owned(), name.to_owned())], false)?;
        texts.pop()
    }

    #[test]
    fn the_command_line_beats_the_environment_beats_the_later_file() {
        let dir = tempfile::tempdir().unwrap();
        let one = put(dir.path(), "one.conf", "[a]\nk = 1\nk = 2\n");
        put(dir.path(), "d/20.conf", "[A]\nk = 4\n");
        put(dir.path(), "d/10.conf", "[a]\nk = 3\n");
        put(dir.path(), "d/.hidden.conf", "[a]\nk = 5\n");
        let mut args = LoadArgs { sources: vec![Source::File(one.clone())], ..LoadArgs::default() };
        assert_eq!(get(&args, "a", "k"), Some(("2".to_owned(), Origin::File(one.into(), 3))));
        args.sources.push(Source::Dir(dir.path().join("d")));
        assert_eq!(get(&args, "a", "k").unwrap().0, "4");
        args.sources.reverse();
        assert_eq!(get(&args, "a", "k").unwrap().0, "2", "files win in the order of the command line");
        args.environment.insert("OS_A__K".to_owned(), "env".to_owned());
        assert_eq!(get(&args, "a", "k").unwrap(), ("env".to_owned(), Origin::Environment("OS_A__K".to_owned())));
        args.overrides.push(("a".to_owned(), "k".to_owned(), "cli".to_owned()));
        assert_eq!(get(&args, "a", "k").unwrap(), ("cli".to_owned(), Origin::CommandLine));
    }

    #[test]
    fn repeated_options_are_collected_from_the_first_file_on() {
        let dir = tempfile::tempdir().unwrap();
        let one = put(dir.path(), "one.conf", "[n]\ndriver = a\ndriver = b\n");
        let two = put(dir.path(), "two.conf", "[n]\ndriver = c\n");
        let args = LoadArgs { sources: vec![Source::File(one), Source::File(two)], ..LoadArgs::default() };
        let texts = Texts::load(&args, Vec::new()).unwrap();
        let (all, _) = texts.get(&[("n".to_owned(), "driver".to_owned())], true).unwrap();
        assert_eq!(all.into_iter().map(|(text, _)| text).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn default_places_are_searched_unless_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (home, etc) = (dir.path().join("home"), dir.path().join("etc"));
        let near = put(&home, "cinder.conf", "");
        put(&etc, "cinder.conf", "");
        let own = put(&etc, "cinder-volume.conf", "");
        let extra = put(&etc, "cinder.conf.d/a.conf", "");
        let mut args = LoadArgs { search: vec![home, etc], ..LoadArgs::default() };
        assert_eq!(args.files().unwrap(), [near, own.clone(), extra.clone()]);
        args.sources.push(Source::File(own.clone()));
        assert_eq!(args.files().unwrap(), [extra, own], "the default directories are read all the same");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let load = |source| Texts::load(&LoadArgs { sources: vec![source], ..LoadArgs::default() }, Vec::new());
        let missing = dir.path().join("missing");
        for source in [Source::File(missing.clone()), Source::Dir(missing.clone())] {
            let error = load(source).unwrap_err();
            assert!(matches!(&error, Error::Unreadable { path, .. } if *path == missing), "{error}");
        }
        let bad = put(dir.path(), "bad.conf", "[a]\nno assignment\n");
        assert!(load(Source::File(bad)).unwrap_err().to_string().contains("bad.conf:2: "));
        let binary = dir.path().join("binary.conf");
        std::fs::write(&binary, b"[a]\nk = \xff\n").unwrap();
        assert!(load(Source::File(binary)).unwrap_err().to_string().contains("UTF-8"));
    }
}
