//! The front door of stand-alone mode: the block-storage v3 API (`cinder/api/v3/`, `cinder/volume/api.py`).

mod attachments;
mod body;
mod errors;
mod limits;
mod lookup;
mod metadata;
mod microversion;
mod paging;
mod quota;
mod request;
mod services;
mod snapshots;
mod types;
mod versions;
mod views;
mod volume_actions;
mod volume_connections;
mod volume_create;
mod volume_delete;
mod volume_filter;
mod volumes;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use scoria_coordination::Coordinator;
use scoria_db::Database;
use scoria_model::Host;
use secrecy::SecretString;

pub use errors::ApiError;

/// Everything that the front door needs. Nothing here can do the volume service's work.
#[derive(Clone)]
pub struct FrontDoor {
    /// The rows.
    pub database: Database,
    /// How messages reach the volume service.
    pub rpc: scoria_rpc::Client,
    /// Locks, for the one that cinder-api takes itself (around the update of an attachment).
    pub coordinator: Coordinator,
    /// The one back end, with its pool: `host@backend#pool`. New volumes are put there.
    pub host: Host,
    /// The cluster of that back end, where it has one: `cluster@backend#pool`.
    pub cluster: Option<Host>,
    /// Limits of a project that has none of its own.
    pub quotas: scoria_db::QuotaDefaults,
    /// Whether snapshots count against gigabytes (`no_snapshot_gb_quota` is false).
    pub snapshots_use_gigabytes: bool,
    /// The token that callers must show; without one everybody is let in, as an administrator.
    pub token: Option<SecretString>,
    /// `storage_availability_zone`: the only zone.
    pub availability_zone: String,
    /// `default_volume_type`.
    pub default_volume_type: String,
    /// `osapi_max_limit`: items on one page at most.
    pub page_limit: u64,
    /// `service_down_time`, seconds: a service without a heartbeat for longer is shown as down.
    pub service_down_time: i64,
}

/// The API at `/` and `/v3`, with and without a project in the address.
pub fn router(door: FrontDoor) -> Router {
    let door = Arc::new(door);
    let api = resources();
    Router::new()
        .route("/", get(versions::all))
        .route("/v3", get(versions::this))
        .route("/v3/", get(versions::this))
        .nest("/v3/{project_id}", api.clone())
        .nest("/v3", api)
        .fallback(async || ApiError::no_such_resource())
        .method_not_allowed_fallback(async || ApiError::no_such_resource())
        .layer(DefaultBodyLimit::max(body::MAX_BYTES))
        .layer(middleware::from_fn_with_state(door.clone(), request::shake_hands))
        .layer(middleware::from_fn(request::arrive))
        .with_state(door)
}

fn resources() -> Router<Arc<FrontDoor>> {
    Router::new()
        .route("/volumes", get(volumes::list).post(volume_create::create))
        .route("/volumes/detail", get(volumes::list_detailed))
        .route("/volumes/summary", get(volumes::overview))
        .route("/volumes/{id}", get(volumes::show).put(volumes::update).delete(volume_delete::delete))
        .route("/volumes/{id}/action", post(volume_actions::act))
        .route(
            "/volumes/{id}/metadata",
            get(metadata::of_volume).post(metadata::add_to_volume).put(metadata::replace_of_volume),
        )
        .route(
            "/volumes/{id}/metadata/{key}",
            get(metadata::one_of_volume).put(metadata::set_of_volume).delete(metadata::remove_from_volume),
        )
        .route("/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/snapshots/detail", get(snapshots::list_detailed))
        .route("/snapshots/{id}", get(snapshots::show).put(snapshots::update).delete(snapshots::delete))
        .route("/snapshots/{id}/action", post(snapshots::act))
        .route(
            "/snapshots/{id}/metadata",
            get(metadata::of_snapshot).post(metadata::add_to_snapshot).put(metadata::replace_of_snapshot),
        )
        .route(
            "/snapshots/{id}/metadata/{key}",
            get(metadata::one_of_snapshot).put(metadata::set_of_snapshot).delete(metadata::remove_from_snapshot),
        )
        .route("/attachments", get(attachments::list).post(attachments::create))
        .route("/attachments/detail", get(attachments::list_detailed))
        .route("/attachments/{id}", get(attachments::show).put(attachments::update).delete(attachments::delete))
        .route("/attachments/{id}/action", post(attachments::act))
        .route("/types", get(types::list))
        .route("/types/{id}", get(types::show))
        .route("/types/{id}/extra_specs", get(types::extra_specs))
        .route("/os-services", get(services::list))
        .route("/os-services/{action}", put(services::change))
        .route("/os-availability-zone", get(services::availability_zones))
        .route(
            "/os-quota-sets/{project}",
            get(limits::quota_set).put(limits::change_quota_set).delete(limits::reset_quota_set),
        )
        .route("/os-quota-sets/{project}/defaults", get(limits::quota_defaults))
        .route("/limits", get(limits::limits))
        .route("/extensions", get(services::extensions))
}
