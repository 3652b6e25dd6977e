//! Microversions: which form of the API the caller asked for (`cinder/api/openstack/wsgi.py: Request`).

use std::fmt;

use axum::http::{HeaderMap, StatusCode};

use super::errors::ApiError;

/// Header that asks and that answers.
pub(crate) const HEADER: &str = "openstack-api-version";

/// `3.<minor>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Microversion(u32);

impl Microversion {
    /// What a caller gets that does not ask.
    pub(crate) const MIN: Self = Self(0);
    /// The newest (`cinder/api/openstack/api_version_request.py: _MAX_API_VERSION`).
    pub(crate) const MAX: Self = Self(71);

    /// `3.<minor>`, for tests and tables.
    #[cfg(test)]
    pub(crate) fn minor(minor: u32) -> Self {
        Self(minor)
    }

    /// Whether something that came with `3.<minor>` is there.
    pub(crate) fn has(self, minor: u32) -> bool {
        self.0 >= minor
    }

    /// 404, as if there were no such address, unless it came with `3.<minor>` or before.
    pub(crate) fn require(self, minor: u32) -> Result<(), ApiError> {
        if self.has(minor) { Ok(()) } else { Err(ApiError::no_such_resource()) }
    }

    /// What the headers ask for: `volume 3.27`, `volume latest`, among those of other services, or nothing.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(header) = headers.get(HEADER) else { return Ok(Self::MIN) };
        let text = header.to_str().unwrap_or_default();
        let asked = text.split(',').find(|part| part.contains("volume"));
        match asked.and_then(|part| part.split_whitespace().nth(1)) {
            // Cinder answers 404 here; an unreadable header is a bad request.
            None => Err(malformed(text)),
            Some("latest") => Ok(Self::MAX),
            Some(version) => Self::parse(version),
        }
    }

    fn parse(text: &str) -> Result<Self, ApiError> {
        let number = |part: &str| (part == "0" || !part.starts_with('0')).then(|| part.parse::<u32>().ok()).flatten();
        let parts = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        match parts {
            None | Some((0, _)) => Err(malformed(text)),
            Some((3, minor)) if minor <= Self::MAX.0 => Ok(Self(minor)),
            Some(_) => Err(ApiError::new(
                StatusCode::NOT_ACCEPTABLE,
                format!(
                    "Version {text} is not supported by the API. Minimum is {} and maximum is {}.",
                    Self::MIN,
                    Self::MAX
                ),
            )),
        }
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}", self.0)
    }
}

fn malformed(text: &str) -> ApiError {
    ApiError::bad_request(format!(
        "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<Microversion, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().unwrap());
        Microversion::negotiate(&headers).map_err(|error| error.status.as_u16())
    }

    #[test]
    fn the_header_is_read_as_cinder_reads_it() {
        assert_eq!(Microversion::negotiate(&HeaderMap::new()), Ok(Microversion::MIN));
        assert_eq!(ask("volume 3.27"), Ok(Microversion::minor(27)));
        assert_eq!(ask("compute 2.1, volume 3.5"), Ok(Microversion::minor(5)));
        assert_eq!(ask("volume latest"), Ok(Microversion::MAX));
        for outside in ["volume 3.72", "volume 2.0", "volume 4.0"] {
            assert_eq!(ask(outside), Err(406), "{outside}");
        }
        for nonsense in ["volume 3", "volume 3.x", "volume 3.01", "volume", "compute 2.1", "volume 0.1"] {
            assert_eq!(ask(nonsense), Err(400), "{nonsense}");
        }
    }

    #[test]
    fn what_came_later_is_not_there() {
        assert!(Microversion::minor(27).require(27).is_ok());
        assert_eq!(Microversion::minor(26).require(27).unwrap_err().status, StatusCode::NOT_FOUND);
    }
}
