//! The documents that say which versions there are (`cinder/api/versions.py`).

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::microversion::Microversion;
use super::request::base_url;

/// `GET /`: all versions, with status 300.
pub(crate) async fn all(headers: HeaderMap) -> Response {
    (StatusCode::MULTIPLE_CHOICES, Json(document(&base_url(&headers)))).into_response()
}

/// `GET /v3/`: this version.
pub(crate) async fn this(headers: HeaderMap) -> Json<Value> {
    Json(document(&base_url(&headers)))
}

fn document(base: &str) -> Value {
    json!({"versions": [{
        "id": "v3.0",
        "status": "CURRENT",
        "version": Microversion::MAX.to_string(),
        "min_version": Microversion::MIN.to_string(),
        "updated": "2023-08-31T00:00:00Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": format!("{base}/v3/")},
        ],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.volume+json;version=3",
        }],
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_the_range_and_the_address() {
        let document = document("http://127.0.0.1:8776");
        let version = &document["versions"][0];
        assert_eq!((&version["min_version"], &version["version"]), (&json!("3.0"), &json!("3.71")));
        assert_eq!(version["links"][1]["href"], "http://127.0.0.1:8776/v3/");
    }
}
