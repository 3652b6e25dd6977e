//! The name of a place that serves volumes: `host@backend#pool`.

use std::fmt;
use std::str::FromStr;

/// A host text that has no host part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a host: expected HOST@BACKEND or HOST@BACKEND#POOL")]
pub struct HostError(String);

/// `host@backend#pool`; back end and pool may be absent. A cluster name has the same form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// The node's part (`[DEFAULT] host` or `backend_host`), or the cluster's.
    pub host: String,
    /// The back end's section name.
    pub backend: Option<String>,
    /// The pool, as reported to the scheduler.
    pub pool: Option<String>,
}

impl Host {
    /// `host@backend`.
    #[must_use]
    pub fn new(host: &str, backend: &str) -> Self {
        Self { host: host.to_owned(), backend: Some(backend.to_owned()), pool: None }
    }

    /// Without the pool: what stands in `services.host` and in queue names.
    #[must_use]
    pub fn service(&self) -> String {
        match &self.backend {
            Some(backend) => format!("{}@{backend}", self.host),
            None => self.host.clone(),
        }
    }

    /// The same place with another pool.
    #[must_use]
    pub fn with_pool(&self, pool: Option<&str>) -> Self {
        Self { pool: pool.map(str::to_owned), ..self.clone() }
    }

    /// Whether both name the same back end, pools aside
    /// (`cinder/volume/volume_utils.py: hosts_are_equivalent`).
    #[must_use]
    pub fn same_service(&self, other: &Self) -> bool {
        self.host == other.host && self.backend == other.backend
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service())?;
        match &self.pool {
            Some(pool) => write!(f, "#{pool}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        let (service, pool) = match text.split_once('#') {
            Some((service, pool)) => (service, Some(pool.to_owned())),
            None => (text, None),
        };
        let (host, backend) = match service.split_once('@') {
            Some((host, backend)) => (host, Some(backend.to_owned())),
            None => (service, None),
        };
        if host.is_empty() {
            return Err(HostError(text.to_owned()));
        }
        Ok(Self { host: host.to_owned(), backend, pool })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_host_come_back_as_they_went_in() {
        for text in ["node", "node@nfs1", "node@nfs1#pool", "node#pool"] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
        }
        let host: Host = "n@b#p".parse().unwrap();
        assert_eq!(host.service(), "n@b");
        assert!(host.same_service(&Host::new("n", "b")));
        assert!("@b".parse::<Host>().is_err());
    }
}
