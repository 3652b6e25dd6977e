//! From texts to values: defaults, back-end look-up, interpolation, types.

use std::collections::BTreeMap;

use crate::error::{Error, WrongValue};
use crate::from_value::FromValue;
use crate::interpolate::interpolate;
use crate::options::{self, BACKEND_DEFAULTS, DefaultText, OptionSpec};
use crate::source::{Located, Origin, Texts};
use crate::types::{Kind, Value};

/// An option's value and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved<'a> {
    pub(crate) value: Option<Value>,
    pub(crate) origin: Origin,
    /// The section that has it: the one asked for, or `[backend_defaults]` in its place.
    pub(crate) section: &'a str,
}

/// Everything an option's value depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    pub(crate) texts: Texts,
    /// The sections of `enabled_backends`.
    pub(crate) backends: Vec<String>,
}

/// An option in a section, on the way to which another one's value is needed.
type Stack<'a> = Vec<(&'a str, &'a str)>;

impl Resolver {
    /// The value of an option in a section. A back end's section falls through to `[backend_defaults]`, and only there
    /// the default counts; `[DEFAULT]` is not asked (`cinder/volume/configuration.py: BackendGroupConfiguration`).
    pub(crate) fn get<'a>(&self, spec: &OptionSpec, section: &'a str) -> Result<Resolved<'a>, Error> {
        self.get_within(spec, section, &Stack::new())
    }

    fn get_within<'a>(&self, spec: &OptionSpec, section: &'a str, stack: &Stack<'_>) -> Result<Resolved<'a>, Error> {
        if let Some(resolved) = self.set_in(spec, section, stack)? {
            return Ok(resolved);
        }
        if spec.group == BACKEND_DEFAULTS
            && section != BACKEND_DEFAULTS
            && !spec.own_section_only
            && let Some(resolved) = self.set_in(spec, BACKEND_DEFAULTS, stack)?
        {
            return Ok(resolved);
        }
        let text = match spec.default {
            DefaultText::None => return Ok(Resolved { value: None, origin: Origin::Default, section }),
            DefaultText::Text(text) => text.to_owned(),
            DefaultText::Computed(_, value) => crate::interpolate::escape(&value()),
        };
        let value = self.parse(spec, section, &[(text, Origin::Default)], stack)?;
        Ok(Resolved { value, origin: Origin::Default, section })
    }

    /// The value that the operator gave in this very section, when there is one.
    fn set_in<'a>(
        &self,
        spec: &OptionSpec,
        section: &'a str,
        stack: &Stack<'_>,
    ) -> Result<Option<Resolved<'a>>, Error> {
        let Some((texts, _)) = self.texts.get(&names(spec, section), spec.kind == Kind::MultiStr) else {
            return Ok(None);
        };
        let value = self.parse(spec, section, &texts, stack)?;
        // In a back end's section an empty number is as good as none and falls through.
        let falls_through = value.is_none() && spec.group == BACKEND_DEFAULTS && section != BACKEND_DEFAULTS;
        let origin = texts.last().map_or(Origin::Default, |(_, origin)| origin.clone());
        Ok((!falls_through).then_some(Resolved { value, origin, section }))
    }

    fn parse(
        &self,
        spec: &OptionSpec,
        section: &str,
        texts: &[Located],
        stack: &Stack<'_>,
    ) -> Result<Option<Value>, Error> {
        let place = Place::of(spec, section);
        let read = |(text, origin): &Located| {
            let text = self.interpolated(place, text, origin, stack)?;
            spec.kind.parse(&text).map_err(|problem| place.wrong(&text, origin, problem))
        };
        if spec.kind == Kind::MultiStr {
            let items: Result<Vec<_>, Error> = texts.iter().map(read).collect();
            return Ok(Some(Value::List(items?.into_iter().flatten().map(|item| item.to_string()).collect())));
        }
        texts.last().map_or(Ok(None), read)
    }

    fn interpolated(&self, place: Place<'_>, text: &str, origin: &Origin, stack: &Stack<'_>) -> Result<String, Error> {
        let complain = |problem| place.wrong(text, origin, problem);
        let mut stack = stack.clone();
        stack.push((place.section, place.name));
        interpolate(text, |name| match self.named(place.section, name, &stack) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(complain(format!("'${name}' names no option; a plain dollar sign is written '$$'"))),
            Err(NameError::Cycle) => Err(complain(format!("'${name}' leads back to this option"))),
            Err(NameError::List) => Err(complain(format!("'${name}' is a list, which cannot become part of a text"))),
            Err(NameError::Unset) => {
                Err(complain(format!("Scoria does not use '${name}' and knows no default for it; write the value out")))
            }
            Err(NameError::Wrong(error)) => Err(error),
        })
    }

    /// What `$name` in `section` stands for: an option of that section, else of `[DEFAULT]`; `None` when there is none.
    fn named(&self, section: &str, name: &str, stack: &Stack<'_>) -> Result<Option<String>, NameError> {
        let (first, option) = name.split_once('.').unwrap_or((section, name));
        match self.named_in(first, option, stack)? {
            None => self.named_in("DEFAULT", name, stack),
            found => Ok(found),
        }
    }

    fn named_in(&self, section: &str, name: &str, stack: &Stack<'_>) -> Result<Option<String>, NameError> {
        if stack.contains(&(section, name)) {
            return Err(NameError::Cycle);
        }
        let is_backend = self.backends.iter().any(|backend| backend == section);
        let group = if is_backend { BACKEND_DEFAULTS } else { section };
        let resolved = match options::find(group, name) {
            // The section's own value only: here, unlike for the driver, `[backend_defaults]` is not asked.
            Some(spec) if is_backend => self.set_in(spec, section, stack)?.and_then(|resolved| resolved.value),
            Some(spec) => self.get_within(spec, section, stack)?.value,
            None if options::is_known(group, name) => return self.unused_text(section, name, stack).map(Some),
            None => return Ok(None),
        };
        match resolved {
            Some(Value::List(_) | Value::Dict(_)) => Err(NameError::List),
            Some(value) => Ok(Some(value.to_string())),
            None => Ok(Some(String::new())),
        }
    }

    /// The text of an option of Cinder's that Scoria does not use, for those that mention it.
    fn unused_text(&self, section: &str, name: &str, stack: &Stack<'_>) -> Result<String, NameError> {
        let found = self.texts.get(&[(section.to_owned(), name.to_owned())], false);
        let (text, origin) = found.and_then(|(mut texts, _)| texts.pop()).ok_or(NameError::Unset)?;
        // It may be a password, for all we know.
        let place = Place { section, name, secret: true };
        Ok(self.interpolated(place, &text, &origin, stack)?)
    }

    /// The error for an option whose value has the right type and is wrong all the same.
    pub(crate) fn complaint(&self, group: &str, name: &str, problem: String) -> Error {
        let spec = options::find(group, name);
        let resolved = spec.and_then(|spec| self.get(spec, group).ok());
        let (value, origin) = resolved.map_or((None, Origin::Default), |resolved| (resolved.value, resolved.origin));
        let text = value.map(|value| value.to_string()).unwrap_or_default();
        Place { section: group, name, secret: spec.is_none_or(|spec| spec.secret) }.wrong(&text, &origin, problem)
    }

    /// One sentence for each option set under an earlier name.
    pub(crate) fn deprecations(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for spec in options::all() {
            for section in self.sections(spec) {
                let names = names(spec, section);
                if let Some((texts, index @ 1..)) = self.texts.get(&names, false)
                    && let (Some((group, old)), Some((_, origin))) = (names.get(index), texts.last())
                {
                    sentences.push(format!("{origin}: [{group}] {old} is deprecated: use [{section}] {}", spec.name));
                }
            }
        }
        sentences
    }

    /// Where an option may stand: its group, or each back end's section and the shared one.
    pub(crate) fn sections<'a>(&'a self, spec: &'a OptionSpec) -> impl Iterator<Item = &'a str> {
        let backends = if spec.group == BACKEND_DEFAULTS { self.backends.as_slice() } else { &[] };
        let shared = (!spec.own_section_only).then_some(spec.group);
        backends.iter().map(String::as_str).chain(shared)
    }
}

enum NameError {
    Cycle,
    List,
    Unset,
    Wrong(Error),
}

impl From<Error> for NameError {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

/// The names under which an option is looked for in a section, the current one first.
pub(crate) fn names(spec: &OptionSpec, section: &str) -> Vec<(String, String)> {
    let earlier = spec.deprecated.iter().map(|&(group, name)| (if group.is_empty() { section } else { group }, name));
    [(section, spec.name)].into_iter().chain(earlier).map(|(group, name)| (group.to_owned(), name.to_owned())).collect()
}

/// An option in a section, for messages.
#[derive(Clone, Copy)]
struct Place<'a> {
    section: &'a str,
    name: &'a str,
    secret: bool,
}

impl<'a> Place<'a> {
    fn of(spec: &OptionSpec, section: &'a str) -> Self {
        Self { section, name: spec.name, secret: spec.secret }
    }

    fn wrong(self, text: &str, origin: &Origin, problem: String) -> Error {
        Error::Value(Box::new(WrongValue {
            origin: origin.clone(),
            group: self.section.to_owned(),
            option: self.name.to_owned(),
            value: if self.secret { "***".to_owned() } else { text.to_owned() },
            problem,
        }))
    }
}

/// Reads the options of one section into a struct.
#[derive(Debug)]
pub struct Reader<'a> {
    resolver: &'a Resolver,
    /// A back end's section; `None`: each option's own group.
    section: Option<&'a str>,
    /// Texts that win over all others, and where they stand (the query of a transport URL).
    overrides: BTreeMap<String, Located>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(resolver: &'a Resolver, section: Option<&'a str>) -> Self {
        Self { resolver, section, overrides: BTreeMap::new() }
    }

    pub(crate) fn with_overrides(self, overrides: BTreeMap<String, Located>) -> Self {
        Self { overrides, ..self }
    }

    /// The option's value as the Rust type that the struct wants.
    pub(crate) fn read<T: FromValue>(&self, spec: &OptionSpec) -> Result<T, Error> {
        let section = self.section.unwrap_or(spec.group);
        let resolved = match self.overrides.get(spec.name) {
            Some((text, origin)) => Resolved {
                value: spec
                    .kind
                    .parse(text)
                    .map_err(|problem| Place::of(spec, section).wrong(text, origin, problem))?,
                origin: origin.clone(),
                section,
            },
            None => self.resolver.get(spec, section)?,
        };
        let text = resolved.value.as_ref().map(ToString::to_string).unwrap_or_default();
        T::from_value(resolved.value)
            .map_err(|problem| Place::of(spec, resolved.section).wrong(&text, &resolved.origin, problem))
    }
}
