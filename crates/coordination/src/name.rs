//! What may be a lock name.

use crate::Error;

/// Cinder's prefix of every lock name (`cinder/coordination.py: COORDINATOR`).
pub const PREFIX: &str = "cinder-";

/// Longest complete name: a file name on every common file system.
const LONGEST: usize = 255;

/// The name as it is shown to people: without the prefix.
pub(crate) fn bare(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Checks a name without its prefix and puts the prefix before it.
///
/// Cinder encodes names as ASCII and fails on anything else; a slash would leave the directory of lock files and nest
/// nodes elsewhere.
pub(crate) fn complete(name: &str) -> Result<String, Error> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if !name.is_ascii() {
        "only ASCII is allowed"
    } else if name.contains('/') {
        "'/' is not allowed"
    } else if name.contains('\0') {
        "NUL is not allowed"
    } else if PREFIX.len() + name.len() > LONGEST {
        "it is longer than 248 characters"
    } else {
        return Ok(format!("{PREFIX}{name}"));
    };
    Err(Error::Name { name: name.to_owned(), reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_the_prefix_and_bad_ones_are_refused_with_the_reason() {
        assert_eq!(complete("3f2b-delete_volume").unwrap(), "cinder-3f2b-delete_volume");
        assert_eq!(bare("cinder-3f2b-delete_volume"), "3f2b-delete_volume");
        let long = "x".repeat(249);
        for bad in ["", "größe", "../etc", "a/b", "a\0b", &long] {
            assert!(matches!(complete(bad), Err(Error::Name { .. })), "{bad:?}");
        }
        assert!(complete(&"x".repeat(248)).is_ok());
    }
}
