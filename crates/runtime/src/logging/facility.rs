//! Kinds of services, as syslog knows them.

use std::str::FromStr;

/// Their names, and their codes (RFC 3164).
const FACILITIES: [(&str, u8); 20] = [
    ("KERN", 0),
    ("USER", 1),
    ("MAIL", 2),
    ("DAEMON", 3),
    ("AUTH", 4),
    ("SYSLOG", 5),
    ("LPR", 6),
    ("NEWS", 7),
    ("UUCP", 8),
    ("CRON", 9),
    ("AUTHPRIV", 10),
    ("FTP", 11),
    ("LOCAL0", 16),
    ("LOCAL1", 17),
    ("LOCAL2", 18),
    ("LOCAL3", 19),
    ("LOCAL4", 20),
    ("LOCAL5", 21),
    ("LOCAL6", 22),
    ("LOCAL7", 23),
];

/// Which kind of service a line comes from: `LOG_USER`, `user`, `LOG_LOCAL0`, …, as in `[DEFAULT] syslog_log_facility`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

/// A facility that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no syslog facility: use LOG_USER, LOG_DAEMON, LOG_LOCAL0 to LOG_LOCAL7 or another one of syslog(3)")]
pub struct UnknownFacility(String);

impl Facility {
    /// `LOG_USER`.
    pub const USER: Self = Self(1);

    pub(super) fn code(self) -> u8 {
        self.0
    }

    /// What a line begins with: facility and severity in one number.
    pub(super) fn with(self, level: tracing::Level) -> u8 {
        self.0 * 8 + severity(level)
    }
}

/// Syslog's severity of a level (`oslo_log/handlers.py: SYSLOG_MAP`).
pub(super) fn severity(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 3,
        tracing::Level::WARN => 4,
        tracing::Level::INFO => 6,
        _ => 7,
    }
}

/// In any case, with or without `LOG_` (`oslo_log/log.py: _find_facility`).
impl FromStr for Facility {
    type Err = UnknownFacility;

    fn from_str(text: &str) -> Result<Self, UnknownFacility> {
        let upper = text.to_uppercase();
        let name = upper.strip_prefix("LOG_").unwrap_or(&upper);
        let known = FACILITIES.iter().find(|(known, _)| *known == name);
        known.map(|(_, code)| Self(*code)).ok_or_else(|| UnknownFacility(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_are_known_in_any_writing() {
        for text in ["LOG_LOCAL0", "local0", "Log_Local0"] {
            assert_eq!(text.parse::<Facility>().unwrap().with(tracing::Level::ERROR), 131);
        }
        assert_eq!(Facility::USER.with(tracing::Level::DEBUG), 15);
        assert!("LOG_LOUD".parse::<Facility>().unwrap_err().to_string().contains("LOG_LOUD"));
    }
}
