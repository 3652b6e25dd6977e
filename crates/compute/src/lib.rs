//! Nova, as far as the volume service needs it: snapshots of volumes that a server writes to.
//!
//! [`Compute`] is what is asked, [`Nova`] asks it: with a token of Keystone's identity API v3, at the endpoint that the token's catalog
//! names, or at a fixed one without a token ([`Options`]). [`Error`] says whether a request that failed may have been done all the same.
//!
//! What it is not: it knows no overlay file, no snapshot's row and no waiting for what Nova has taken on.

mod catalog;
mod error;
mod http;
mod identity;
mod nova;
mod options;
mod token_request;

use async_trait::async_trait;
pub use error::Error;
pub use nova::Nova;
pub use options::{Auth, Credential, Domain, Interface, Options, Scope, User};
use serde_json::Value;

/// What a volume service asks of Nova.
#[async_trait]
pub trait Compute: Send + Sync + std::fmt::Debug + 'static {
    /// Has the server that a volume is attached to write into a new overlay: `POST /os-assisted-volume-snapshots`.
    /// The answer says only that Nova has taken it on; it reports through cinder-api's `os-update_snapshot_status`.
    ///
    /// `request_id` is that of the request that this is done for; Nova logs it.
    ///
    /// # Errors
    /// [`Error::NotDone`] and [`Error::Unknown`].
    async fn create_volume_snapshot(
        &self,
        request_id: Option<&str>,
        volume_id: &str,
        create_info: &Value,
    ) -> Result<(), Error>;

    /// Has the server merge the overlay of a snapshot: `DELETE /os-assisted-volume-snapshots/<id>?delete_info=<JSON>`.
    /// Taken on and reported as in [`Compute::create_volume_snapshot`].
    ///
    /// # Errors
    /// [`Error::NotDone`] and [`Error::Unknown`].
    async fn delete_volume_snapshot(
        &self,
        request_id: Option<&str>,
        snapshot_id: &str,
        delete_info: &Value,
    ) -> Result<(), Error>;
}
