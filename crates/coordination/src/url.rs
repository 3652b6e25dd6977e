//! `backend_url`, read as tooz reads it (`oslo_utils.netutils.urlsplit` and `urllib.parse.parse_qs`).

use crate::Error;

/// The parts of a URL that lock services go by. Nothing is decoded or normalised: tooz takes the path as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendUrl<'a> {
    /// In lower case.
    pub(crate) scheme: String,
    /// Between `//` and the path.
    pub(crate) authority: &'a str,
    /// Up to the query.
    pub(crate) path: &'a str,
    query: &'a str,
}

impl<'a> BackendUrl<'a> {
    /// Takes a URL apart.
    pub(crate) fn parse(url: &'a str) -> Result<Self, Error> {
        let trimmed = url.trim();
        let (scheme, rest) = trimmed.split_once(':').ok_or_else(|| {
            Error::Config(format!(
                "'{}' has no scheme; write for example file:///var/lib/cinder",
                without_secrets(trimmed)
            ))
        })?;
        let valid = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(valid) {
            return Err(Error::Config(format!("'{}' is no scheme", without_secrets(scheme))));
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        Ok(Self { scheme: scheme.to_ascii_lowercase(), authority, path, query })
    }

    /// The last value of an option; blank ones do not count.
    pub(crate) fn option(&self, key: &str) -> Option<&'a str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.rfind(|(name, value)| *name == key && !value.is_empty()).map(|(_, value)| value)
    }
}

/// What stands before an `@` may be a password.
fn without_secrets(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, after)| format!("***@{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart_as_in_tooz() {
        for (url, scheme, authority, path) in [
            ("file:///var/lib/cinder", "file", "", "/var/lib/cinder"),
            ("file://var/lib/cinder", "file", "var", "/lib/cinder"),
            ("FILE:///a%20b?timeout=5#x", "file", "", "/a%20b"),
            ("file:/one/slash", "file", "", "/one/slash"),
            ("memory://", "memory", "", ""),
            ("etcd3+http://h:2379", "etcd3+http", "h:2379", ""),
        ] {
            let parsed = BackendUrl::parse(url).unwrap();
            assert_eq!((parsed.scheme.as_str(), parsed.authority, parsed.path), (scheme, authority, path), "{url}");
        }
    }

    #[test]
    fn the_last_value_of_an_option_counts() {
        let url = BackendUrl::parse("file:///x?timeout=5&a=&timeout=7&timeout=").unwrap();
        assert_eq!(url.option("timeout"), Some("7"));
        assert_eq!(url.option("a"), None);
    }

    #[test]
    fn nonsense_is_refused_without_showing_passwords() {
        let error = BackendUrl::parse("u/secret@host").unwrap_err().to_string();
        assert!(error.contains("has no scheme") && !error.contains("secret"), "{error}");
        assert!(BackendUrl::parse("/var/lib:x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = BackendUrl::parse(&text);
        }
    }
}
