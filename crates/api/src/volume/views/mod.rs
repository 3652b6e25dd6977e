//! What clients see of rows: pure functions from rows to JSON.

mod attachment;
mod services;
mod snapshot;
mod types;
mod volume;

use scoria_model::Timestamp;
use serde_json::{Value, json};

pub(crate) use attachment::{detail as attachment_detail, summary as attachment_summary};
pub(crate) use services::service;
pub(crate) use snapshot::{detail as snapshot_detail, summary as snapshot_summary};
pub(crate) use types::volume_type;
pub(crate) use volume::{detail as volume_detail, full as volume_full, summary as volume_summary};

/// How links begin: the server as the caller named it, and the project if the caller's address had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    versioned: String,
    bare: String,
}

impl Links {
    pub(crate) fn new(base: &str, project: Option<&str>) -> Self {
        let project = project.map(|project| format!("/{project}")).unwrap_or_default();
        Self { versioned: format!("{base}/v3{project}"), bare: format!("{base}{project}") }
    }

    /// The two links of a resource.
    pub(crate) fn of(&self, collection: &str, id: impl std::fmt::Display) -> Value {
        json!([
            {"rel": "self", "href": format!("{}/{collection}/{id}", self.versioned)},
            {"rel": "bookmark", "href": format!("{}/{collection}/{id}", self.bare)},
        ])
    }

    /// The link to the next page.
    pub(crate) fn next(&self, collection: &str, query: &str) -> Value {
        json!([{"rel": "next", "href": format!("{}/{collection}?{query}", self.versioned)}])
    }
}

/// A time as it stands in answers, or null.
pub(crate) fn time(at: Option<Timestamp>) -> Value {
    at.map(Timestamp::to_iso_micros).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_the_project_only_if_the_caller_did() {
        let links = Links::new("http://h:1", Some("p"));
        assert_eq!(links.of("volumes", "x")[0]["href"], "http://h:1/v3/p/volumes/x");
        assert_eq!(links.of("volumes", "x")[1]["href"], "http://h:1/p/volumes/x");
        assert_eq!(Links::new("http://h:1", None).next("volumes", "a=b")[0]["href"], "http://h:1/v3/volumes?a=b");
    }
}
