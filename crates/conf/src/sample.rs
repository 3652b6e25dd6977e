//! `cinder.conf.sample`: every option with its help, in the look of oslo-config-generator.

use std::fmt::Write;

use crate::options::{self, DefaultText, OptionSpec};
use crate::types::Kind;

/// The sample file. `config/cinder.conf.sample` is this text.
#[must_use]
pub fn sample() -> String {
    let mut text = "# Every option that Scoria reads, with its default. Lines that begin with '#' have no effect.\n\
                    # Options of Cinder that are missing here are accepted and have no effect.\n"
        .to_owned();
    let mut groups: Vec<&str> = Vec::new();
    for spec in options::all() {
        if !groups.contains(&spec.group) {
            groups.push(spec.group);
        }
    }
    for group in groups {
        let _ = write!(text, "\n[{group}]\n");
        if group == options::BACKEND_DEFAULTS {
            text.push_str(
                "# Each of these may also stand in the section of a single back end, where it counts for that back end\n\
                 # only. Write a section for each name in enabled_backends.\n",
            );
        }
        for spec in options::all().filter(|spec| spec.group == group) {
            option(&mut text, spec);
        }
    }
    text
}

/// `fmt::Write` to a `String` cannot fail.
fn option(text: &mut String, spec: &OptionSpec) {
    text.push('\n');
    let mut help: Vec<String> = spec.help.lines().map(|line| line.trim().to_owned()).collect();
    if let Some(last) = help.last_mut() {
        let _ = write!(last, " ({})", spec.kind.describe());
    }
    for line in wrapped(&help.join(" ")) {
        let _ = writeln!(text, "# {line}");
    }
    if let Some(reason) = options::without_effect(spec.group, spec.name) {
        for line in wrapped(&format!("It has no effect: {reason}.")) {
            let _ = writeln!(text, "# {line}");
        }
    }
    if spec.mutable {
        text.push_str("# A reload of the configuration (SIGHUP) changes it.\n");
    }
    for (group, name) in spec.deprecated {
        let group = if group.is_empty() { spec.group } else { group };
        let _ = writeln!(text, "# Deprecated group/name - [{group}]/{name}");
    }
    if spec.since != "Cinder 29.0.0" {
        let _ = writeln!(text, "# Since {}.", spec.since);
    }
    let default = match spec.default {
        DefaultText::None if spec.kind == Kind::List || spec.kind == Kind::MultiStr => String::new(),
        DefaultText::None => "<None>".to_owned(),
        DefaultText::Text(default) => default.to_owned(),
        DefaultText::Computed(how, _) => format!("<{how}>"),
    };
    let _ = writeln!(text, "{}", format!("#{} = {default}", spec.name).trim_end());
}

/// Lines of at most 77 columns.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always one line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.len() + 1 + word.len() <= 77 {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini;

    #[test]
    fn uncommented_it_is_a_configuration_in_which_every_option_has_its_own_type() {
        let active: String = sample()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let ini = ini::parse(&active).unwrap();
        assert_eq!(ini.entries.len(), options::all().count());
        for entry in ini.entries {
            let spec = options::find(&entry.section, &entry.key).unwrap();
            if let DefaultText::Text(default) = spec.default {
                assert_eq!(entry.value, default);
                if !default.contains('$') {
                    spec.kind.parse(default).unwrap();
                }
            }
        }
    }
}
