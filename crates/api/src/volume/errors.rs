//! Errors, in the bodies that Cinder's clients know (`cinder/api/openstack/wsgi.py: Fault`).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use scoria_model::{Fault, FaultClass, IdError};
use serde_json::{Map, Value, json};

/// The text that Cinder gives with an error whose cause is not the caller's business.
const HIDDEN: &str = "The server has either erred or is incapable of performing the requested operation.";

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{status}: {message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Text for the caller.
    pub message: String,
}

/// What handlers return.
pub(crate) type ApiResult<T = Response> = Result<T, ApiError>;

impl ApiError {
    /// An error with a text of its own.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 without saying what: an unknown address, or one that the requested microversion does not have.
    pub(crate) fn no_such_resource() -> Self {
        Self::new(StatusCode::NOT_FOUND, "The resource could not be found.")
    }

    /// 413 for a quota (`cinder/exception.py: QuotaError`); Cinder puts the exception's name before the text.
    pub(crate) fn quota(class: &str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("{class}: {message}"))
    }

    /// 409 (`cinder/exception.py: ResourceConflict`).
    pub(crate) fn conflict(reason: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, format!("Resource conflict: {reason}"))
    }

    /// 500; the cause goes to the log, the caller gets Cinder's general text.
    pub(crate) fn hidden(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, HIDDEN)
    }

    /// 503: something behind us is not there now; asking again later may help.
    pub(crate) fn unavailable(cause: impl std::fmt::Display) -> Self {
        tracing::warn!(%cause, "request refused");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, cause.to_string())
    }

    /// Key of the body.
    fn name(&self) -> &'static str {
        match self.status.as_u16() {
            400 => "badRequest",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "itemNotFound",
            405 => "badMethod",
            409 => "conflictingRequest",
            413 => "overLimit",
            415 => "badMediaType",
            501 => "notImplemented",
            503 => "serviceUnavailable",
            _ => "computeFault",
        }
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut fault = Map::new();
        fault.insert("code".to_owned(), self.status.as_u16().into());
        fault.insert("message".to_owned(), self.message.clone().into());
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            fault.insert("retryAfter".to_owned(), "0".into());
        }
        json!({ self.name(): fault })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::PAYLOAD_TOO_LARGE {
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("0"));
        }
        response
    }
}

/// Faults are Python's exceptions: those of the caller's making are shown, the others are not.
impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        match fault.class.code() {
            413 => Self::quota(fault.class.name(), &fault.message),
            500 => Self::hidden(format_args!("{}: {}", fault.class.name(), fault.message)),
            code => Self::new(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST), fault.message),
        }
    }
}

/// An id in a query that cannot be one. (Those in addresses are looked up as text and simply not found.)
impl From<IdError> for ApiError {
    fn from(error: IdError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<scoria_rpc::Error> for ApiError {
    fn from(error: scoria_rpc::Error) -> Self {
        match error {
            scoria_rpc::Error::Remote(fault) => fault.into(),
            scoria_rpc::Error::Unavailable(_) | scoria_rpc::Error::Closed => Self::unavailable(error),
            other => Self::hidden(other),
        }
    }
}

impl From<scoria_db::Error> for ApiError {
    fn from(error: scoria_db::Error) -> Self {
        match error {
            // The only rows that a statement itself misses are a page's marker and what went away under our hands.
            scoria_db::Error::NotFound { .. } => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            scoria_db::Error::Unavailable(_) | scoria_db::Error::Busy(_) => Self::unavailable(error),
            other => Self::hidden(other),
        }
    }
}

impl From<scoria_coordination::Error> for ApiError {
    fn from(error: scoria_coordination::Error) -> Self {
        match error {
            scoria_coordination::Error::Name { .. } => Self::bad_request(error.to_string()),
            other => Self::unavailable(other),
        }
    }
}

/// `cinder/exception.py: VolumeTypeNotFound`.
pub(crate) fn volume_type_not_found(id: &str) -> Fault {
    Fault::new(FaultClass::VolumeTypeNotFound, format!("Volume type {id} could not be found."))
        .with("volume_type_id", id)
}

/// `cinder/exception.py: VolumeTypeNotFoundByName`.
pub(crate) fn volume_type_name_not_found(name: &str) -> Fault {
    Fault::new(FaultClass::VolumeTypeNotFound, format!("Volume type with name {name} could not be found."))
        .with("volume_type_name", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_volume_is_item_not_found() {
        let error = ApiError::from(Fault::volume_not_found("x"));
        assert_eq!(error.body(), json!({"itemNotFound": {"code": 404, "message": "Volume x could not be found."}}));
    }

    #[test]
    fn a_quota_names_its_class_and_says_when_to_come_back() {
        let fault = Fault::new(FaultClass::VolumeLimitExceeded, "Maximum number of volumes allowed (10) exceeded");
        let response = ApiError::from(fault.clone()).into_response();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()["retry-after"], "0");
        let body = ApiError::from(fault).body();
        assert_eq!(body["overLimit"]["retryAfter"], "0");
        assert_eq!(
            body["overLimit"]["message"],
            "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded"
        );
    }

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let error = ApiError::from(Fault::backend("password=secret"));
        assert_eq!(error.body(), json!({"computeFault": {"code": 500, "message": HIDDEN}}));
    }

    #[test]
    fn an_unreachable_broker_is_not_the_caller_s_fault() {
        let error = ApiError::from(scoria_rpc::Error::Unavailable("no route".to_owned()));
        assert_eq!(error.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(error.name(), "serviceUnavailable");
    }
}
