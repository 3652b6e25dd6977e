//! `$name`, `${name}`, `$group.name`, `$$` and `\$` in values (`oslo_config/cfg.py: ConfigOpts._substitute`).

/// Replaces each name by what `lookup` says. A `$` that starts no name stays.
///
/// # Errors
/// The first error of `lookup`.
pub(crate) fn interpolate<E>(text: &str, mut lookup: impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
    let text = text.replace("\\$", "$$");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{').and_then(|braced| braced.strip_prefix(name_of(braced))) {
            match after.strip_prefix('}') {
                Some(after) if !name_of(&rest[1..]).is_empty() => {
                    out.push_str(&lookup(name_of(&rest[1..]))?);
                    rest = after;
                }
                _ => out.push('$'),
            }
        } else {
            match name_of(rest) {
                "" => out.push('$'),
                name => {
                    out.push_str(&lookup(name)?);
                    rest = &rest[name.len()..];
                }
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Writes `text` so that interpolation gives it back.
#[must_use]
pub(crate) fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// The longest name at the start: a letter or `_`, then letters, digits, `_` and `.`.
fn name_of(text: &str) -> &str {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return "";
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn angle(text: &str) -> String {
        interpolate::<()>(text, |name| Ok(format!("<{name}>"))).unwrap()
    }

    #[test]
    fn names_and_escapes() {
        assert_eq!(angle("$state_path/mnt"), "<state_path>/mnt");
        assert_eq!(angle("a${b}c$d-e"), "a<b>c<d>-e");
        assert_eq!(angle("$database.connection ${x.y}"), "<database.connection> <x.y>");
        assert_eq!(angle(r"$$a \$b"), "$a $b");
        assert_eq!(angle("5$ $ $5 ${5} ${a ${}"), "5$ $ $5 ${5} ${a ${}");
        assert_eq!(interpolate("$a", |name| Err(name.to_owned())), Err("a".to_owned()));
    }

    proptest! {
        #[test]
        fn an_escaped_text_comes_back(text in "[^\\\\]*") {
            prop_assert_eq!(angle(&escape(&text)), text);
        }

        #[test]
        fn nothing_panics(text in "([$\\\\{}a.é_ ])*") {
            angle(&text);
        }
    }
}
