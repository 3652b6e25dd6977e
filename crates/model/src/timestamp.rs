//! Points in time as Cinder keeps them: naive UTC.

use std::fmt;

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

/// A UTC time. What we make ourselves is cut to whole seconds, because MySQL keeps no more and a
/// compare-and-swap on a longer value would match nothing; what was read is kept as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(PrimitiveDateTime);

impl Timestamp {
    /// Now, in whole seconds.
    #[must_use]
    pub fn now() -> Self {
        Self::from_offset(OffsetDateTime::now_utc()).whole_seconds()
    }

    /// Now, with microseconds: for message timestamps only, never for the database.
    #[must_use]
    pub fn now_precise() -> Self {
        Self::from_offset(OffsetDateTime::now_utc())
    }

    fn from_offset(at: OffsetDateTime) -> Self {
        let utc = at.to_offset(time::UtcOffset::UTC);
        Self(PrimitiveDateTime::new(utc.date(), utc.time()))
    }

    fn whole_seconds(self) -> Self {
        Self(self.0.replace_nanosecond(0).expect("zero nanoseconds are always valid"))
    }

    /// The database's form.
    #[must_use]
    pub fn naive(self) -> PrimitiveDateTime {
        self.0
    }

    /// This time moved by `seconds`, which may be negative.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(Duration::seconds(seconds)))
    }

    /// Whole seconds from `earlier` to this time.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> i64 {
        (self.0 - earlier.0).whole_seconds()
    }

    /// `2026-11-22T04:59:27Z`: inside versioned objects; fractions are dropped.
    #[must_use]
    pub fn to_object(self) -> String {
        self.0.format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z")).expect("a fixed format")
    }

    /// `2026-11-22T04:59:27.000000`: inside plain dicts, in API answers and in capability reports.
    #[must_use]
    pub fn to_iso_micros(self) -> String {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]");
        self.0.format(format).expect("a fixed format")
    }

    /// `2026-11-22 04:59:27.000000`: Python's `str()` of a date, in notifications' `timestamp`.
    #[must_use]
    pub fn to_python_str(self) -> String {
        self.to_iso_micros().replace('T', " ")
    }

    /// Any ISO 8601 time; without an offset it is UTC (`oslo_utils.timeutils.parse_isotime`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().replacen(' ', "T", 1);
        if let Ok(at) = OffsetDateTime::parse(&text, &Rfc3339) {
            return Some(Self::from_offset(at));
        }
        if let Ok(at) = OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339) {
            return Some(Self::from_offset(at));
        }
        let date = time::Date::parse(&text, format_description!("[year]-[month]-[day]")).ok()?;
        Some(Self(date.midnight()))
    }
}

impl From<PrimitiveDateTime> for Timestamp {
    fn from(at: PrimitiveDateTime) -> Self {
        Self(at)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_object())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_the_peers_write() {
        let at = Timestamp::parse("2026-11-22T04:59:27Z").unwrap();
        for text in ["2026-11-22T04:59:27.000000", "2026-11-22 04:59:27", "2026-11-22T05:59:27+01:00"] {
            assert_eq!(Timestamp::parse(text), Some(at), "{text}");
        }
        assert_eq!(at.to_object(), "2026-11-22T04:59:27Z");
        assert_eq!(at.to_iso_micros(), "2026-11-22T04:59:27.000000");
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
