//! oslo.config's INI dialect, line by line (`oslo_config/iniparser.py: BaseParser`).
//!
//! A tokeniser of our own, because every message to the operator wants the line, and because the dialect differs from
//! all others: no inline comments, one quote pair around a whole value removed, repeated keys kept, indented lines
//! continue a value.

/// One `key = value` as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The section as written, without brackets.
    pub section: String,
    /// The key.
    pub key: String,
    /// The value: quotes removed, continuation lines joined with `\n`.
    pub value: String,
    /// The line of the key, from 1.
    pub line: u32,
}

/// What a file holds: its sections (also the empty ones) and its entries, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ini {
    /// Each section header with its line.
    pub sections: Vec<(String, u32)>,
    /// Each assignment.
    pub entries: Vec<Entry>,
}

/// A line that is not INI. It never repeats the line itself, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct SyntaxError {
    /// From 1.
    pub line: u32,
    /// What is wrong and what was expected.
    pub problem: &'static str,
}

/// Reads a whole file.
///
/// # Errors
/// [`SyntaxError`] for the first line that cannot be read.
pub fn parse(text: &str) -> Result<Ini, SyntaxError> {
    let mut ini = Ini::default();
    // Whether the last entry may still be continued by an indented line.
    let mut open = false;
    for (index, raw) in lines(text).enumerate() {
        let line = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let error = |problem| Err(SyntaxError { line, problem });
        let text = raw.trim_end_matches(is_space);
        if text.is_empty() {
            open = false;
        } else if text.starts_with([' ', '\t']) {
            let Some(entry) = ini.entries.last_mut().filter(|_| open) else {
                return error(
                    "an indented line continues a value, but there is none before it; remove the indentation",
                );
            };
            entry.value.push('\n');
            entry.value.push_str(strip(text));
        } else if let Some(rest) = text.strip_prefix('[') {
            open = false;
            match rest.strip_suffix(']') {
                Some("") => return error("the section has no name; write [NAME]"),
                Some(name) => ini.sections.push((name.to_owned(), line)),
                None => return error("the section is not closed; write [NAME] alone on its line"),
            }
        } else if text.starts_with(['#', ';']) {
            open = false;
        } else {
            let Some((key, value)) = text.split_once(['=', ':']) else {
                return error("neither a section, nor a comment, nor KEY = VALUE");
            };
            let key = strip(key);
            if key.is_empty() {
                return error("there is no key before the '=' or ':'");
            }
            let Some((section, _)) = ini.sections.last() else {
                return error("an option before the first section; write [DEFAULT] above it");
            };
            let value = unquote(strip(value)).to_owned();
            ini.entries.push(Entry { section: section.clone(), key: key.to_owned(), value, line });
            open = true;
        }
    }
    Ok(ini)
}

/// The name under which a section is found: lower case, except `DEFAULT` (`oslo_config/cfg.py: _normalize_group_name`).
#[must_use]
pub fn normalized(section: &str) -> String {
    if section == "DEFAULT" { section.to_owned() } else { section.to_lowercase() }
}

/// White space as Python sees it: Unicode's, and the four ASCII separators.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Python's `readlines`: `\n`, `\r\n` and a lone `\r` each end a line.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Removes one pair of quotes around the whole value. A value of one quote counts as a pair, as it does there.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return if rest.is_empty() { rest } else { rest.strip_suffix(quote).unwrap_or(value) };
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<(String, String, u32)> {
        parse(text).unwrap().entries.into_iter().map(|e| (e.key, e.value, e.line)).collect()
    }

    fn value(line: &str) -> String {
        values(&format!("[s]\n{line}\n")).remove(0).1
    }

    #[test]
    fn each_form_of_assignment() {
        assert_eq!(value("k = a ; b # c"), "a ; b # c", "there are no inline comments");
        assert_eq!(value("k: a=b"), "a=b", "the first of '=' and ':' separates");
        assert_eq!(value("k = 'a b'"), "a b");
        assert_eq!(value("k = \"a"), "\"a", "a lone quote stays");
        assert_eq!(value("k = \""), "", "except when it is all there is");
        assert_eq!(value("k = \"a\" \"b\""), "a\" \"b");
        assert_eq!(value("k ="), "");
    }

    #[test]
    fn continuation_comments_and_lines() {
        let text = "# c\n[a]\nk = 1\n  2\n\t # 3\n\nk = 4\r\n; c\n[B]\nl=5";
        let expected = [("k", "1\n2\n# 3", 3), ("k", "4", 7), ("l", "5", 10)];
        assert_eq!(values(text), expected.map(|(k, v, l)| (k.to_owned(), v.to_owned(), l)));
        assert_eq!(parse(text).unwrap().sections, [("a".to_owned(), 2), ("B".to_owned(), 9)]);
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("k = 1\n", 1),
            ("[a]\nk = 1\n\n  2\n", 4),
            ("[a]\n# c\n  2\n", 3),
            ("[a\n", 1),
            ("[]\n", 1),
            ("[a]\nword\n", 2),
            ("[a]\n= 1\n", 2),
        ];
        for (text, line) in cases {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }

    #[test]
    fn sections_are_found_in_any_case_except_default() {
        assert_eq!(normalized("NFS-1"), "nfs-1");
        assert_eq!(normalized("DEFAULT"), "DEFAULT");
        assert_ne!(normalized("default"), "DEFAULT");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|[\\[\\]=: \t\r\n#;'\"])*") {
            let _ = parse(&text);
        }

        #[test]
        fn what_was_written_is_read_back(
            sections in prop::collection::vec(
                ("[a-zA-Z_][a-z0-9_-]{0,8}", prop::collection::vec(("[a-z_]{1,8}", "[!#-&(-~]([ -&(-~]{0,12}[!#-&(-~])?"), 0..5)),
                0..5,
            )
        ) {
            let mut text = String::new();
            let mut expected = Vec::new();
            for (section, entries) in &sections {
                text.push_str(&format!("[{section}]\n"));
                for (key, value) in entries {
                    text.push_str(&format!("{key} = '{value}'\n"));
                    expected.push((section.clone(), key.clone(), value.clone()));
                }
            }
            let read: Vec<_> = parse(&text).unwrap().entries.into_iter().map(|e| (e.section, e.key, e.value)).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
