//! What is wrong with configuration files, everything at once: for `scoria config check`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::Error;
use crate::ini;
use crate::options::{self, BACKEND_DEFAULTS, OptionSpec};
use crate::resolve::{Resolver, names};
use crate::source::{self, LoadArgs, Origin, Source, Texts};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Of no consequence: an option that Scoria does not use.
    Info,
    /// Probably not what was meant.
    Warning,
    /// The service does not start.
    Error,
}

/// One thing found. File, line, group and option are absent where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In which file.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: Option<u32>,
    /// In which section.
    pub group: Option<String>,
    /// Which option.
    pub option: Option<String>,
    /// How bad.
    pub severity: Severity,
    /// What, and what to do.
    pub message: String,
}

/// `FILE:LINE: error: [GROUP] OPTION: MESSAGE`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let space = if self.file.is_some() { " " } else { "" };
        write!(f, "{space}{severity}: ")?;
        match (&self.group, &self.option) {
            (Some(group), Some(option)) => write!(f, "[{group}] {option}: ")?,
            (Some(group), None) => write!(f, "[{group}]: ")?,
            _ => {}
        }
        f.write_str(&self.message)
    }
}

/// Checks files as if they were given in this order, the later over the earlier, with no environment. Files come in their order,
/// lines within a file likewise; then what no line is to blame for.
#[must_use]
pub fn check(files: &[PathBuf]) -> Vec<Finding> {
    let sources: Vec<Source> = files.iter().cloned().map(Source::File).collect();
    let args = LoadArgs { sources, ..LoadArgs::default() };
    let mut findings = Vec::new();
    let mut read = Vec::new();
    for file in files {
        match source::read(file) {
            Ok(ini) => read.push((file, ini)),
            Err(error) => findings.push(Finding::of(&error)),
        }
    }
    // What follows from values makes sense only when all of them are known.
    if !findings.is_empty() {
        return findings;
    }
    let texts = match Texts::load(&args, Vec::new()) {
        Ok(texts) => texts,
        Err(error) => return vec![Finding::of(&error)],
    };
    let backends = backends(&texts);
    let resolver = Resolver { texts, backends };
    for (file, ini) in &read {
        for (section, line) in &ini.sections {
            findings.extend(check_section(section, &resolver).map(|(severity, message)| Finding {
                file: Some(file.to_path_buf()),
                line: Some(*line),
                group: Some(section.clone()),
                option: None,
                severity,
                message,
            }));
        }
        for entry in &ini.entries {
            findings.extend(check_entry(file, entry, &resolver));
        }
    }
    for error in Config::problems(&resolver, &args) {
        let finding = Finding::of(&error);
        if !findings.iter().any(|known| known.severity == Severity::Error && known.same_place(&finding)) {
            findings.push(finding);
        }
    }
    let place =
        |finding: &Finding| files.iter().position(|file| Some(file) == finding.file.as_ref()).unwrap_or(usize::MAX);
    findings.sort_by_key(|finding| (place(finding), finding.line));
    findings
}

impl Finding {
    fn of(error: &Error) -> Self {
        let bare = |message: String| Self {
            file: None,
            line: None,
            group: None,
            option: None,
            severity: Severity::Error,
            message,
        };
        match error {
            Error::Unreadable { path, reason } => {
                Self { file: Some(path.clone()), ..bare(format!("cannot be read: {reason}")) }
            }
            Error::Syntax { path, line, problem } => {
                Self { file: Some(path.clone()), line: Some(*line), ..bare(problem.clone()) }
            }
            Error::Value(wrong) => {
                let (file, line) = match &wrong.origin {
                    Origin::File(path, line) => (Some(path.to_path_buf()), Some(*line)),
                    _ => (None, None),
                };
                let (group, option) = (Some(wrong.group.clone()), Some(wrong.option.clone()));
                Self { file, line, group, option, ..bare(format!("{}: {}", wrong.value, wrong.problem)) }
            }
        }
    }

    fn same_place(&self, other: &Self) -> bool {
        (&self.file, self.line, &self.group, &self.option) == (&other.file, other.line, &other.group, &other.option)
    }
}

/// The back ends, as far as they can be known.
fn backends(texts: &Texts) -> Vec<String> {
    let resolver = Resolver { texts: texts.clone(), backends: Vec::new() };
    let spec = options::find("DEFAULT", "enabled_backends");
    match spec.and_then(|spec| resolver.get(spec, "DEFAULT").ok()).and_then(|resolved| resolved.value) {
        Some(crate::types::Value::List(names)) => names.into_iter().filter(|name| !name.is_empty()).collect(),
        _ => Vec::new(),
    }
}

/// The group whose options a section holds; `None` for a section that nobody reads.
fn group_of(section: &str, resolver: &Resolver) -> Option<String> {
    let section = ini::normalized(section);
    if resolver.backends.iter().any(|backend| ini::normalized(backend) == section) {
        return Some(BACKEND_DEFAULTS.to_owned());
    }
    let is_group = options::all().any(|spec| spec.group == section) || options::known_names(&section).is_some();
    is_group.then_some(section)
}

fn check_section(section: &str, resolver: &Resolver) -> Option<(Severity, String)> {
    if group_of(section, resolver).is_some() {
        return None;
    }
    if section.eq_ignore_ascii_case("DEFAULT") {
        return Some((
            Severity::Warning,
            "is not [DEFAULT], which is written in capitals; it has no effect".to_owned(),
        ));
    }
    let sections = resolver.backends.iter().map(String::as_str).chain(options::all().map(|spec| spec.group));
    let hint = did_you_mean(section, sections).unwrap_or_default();
    Some((Severity::Warning, format!("is neither a group of options nor in enabled_backends: it has no effect{hint}")))
}

fn check_entry(file: &Path, entry: &ini::Entry, resolver: &Resolver) -> Option<Finding> {
    let group = group_of(&entry.section, resolver)?;
    let (severity, message) = if let Some(reason) = options::without_effect(&group, &entry.key) {
        (Severity::Warning, format!("is accepted and has no effect: {reason}"))
    } else if let Some(spec) = options::find(&group, &entry.key) {
        if !spec.own_section_only || ini::normalized(&entry.section) != BACKEND_DEFAULTS {
            return None;
        }
        (Severity::Warning, "has an effect only in the section of a back end".to_owned())
    } else if let Some(spec) = options::all().find(|spec| is_earlier_name(spec, &group, &entry.key)) {
        (Severity::Warning, format!("is deprecated: use [{}] {}", spec.group, spec.name))
    } else if options::is_known(&group, &entry.key) {
        (Severity::Info, "is an option of Cinder that Scoria does not use".to_owned())
    } else if let Some(spec) = (group == "DEFAULT").then(|| options::find(BACKEND_DEFAULTS, &entry.key)).flatten() {
        let message = format!("is not read from [DEFAULT]: move it to the back end's section or to [{}]", spec.group);
        (Severity::Warning, message)
    } else {
        let of_group = options::all().filter(|spec| spec.group == group).map(|spec| spec.name);
        let known = options::known_names(&group).into_iter().flatten().copied();
        let hint = did_you_mean(&entry.key, of_group.chain(known)).unwrap_or_default();
        (Severity::Warning, format!("is no option of this group: it has no effect{hint}"))
    };
    Some(Finding {
        file: Some(file.to_path_buf()),
        line: Some(entry.line),
        group: Some(entry.section.clone()),
        option: Some(entry.key.clone()),
        severity,
        message,
    })
}

fn is_earlier_name(spec: &OptionSpec, group: &str, key: &str) -> bool {
    names(spec, spec.group).iter().skip(1).any(|(earlier, name)| earlier == group && name == key)
}

/// `; did you mean 'x'?` for the nearest of `names`, when it is near.
fn did_you_mean<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: BTreeSet<&str> = names.collect();
    let word = word.to_lowercase().replace('-', "_");
    let nearest = names.into_iter().map(|name| (distance(&word, &name.to_lowercase()), name)).min()?;
    let near = nearest.0 <= 1 + word.chars().count() / 4;
    near.then(|| format!("; did you mean '{}'?", nearest.1))
}

/// How many letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
