//! Names of the manager's metrics.

/// Operations that ended, by `operation` and `outcome` (`ok`, `failed`, `interrupted`).
pub(crate) const OPERATIONS: &str = "scoria_operations_total";
/// Seconds an operation took, from its start to its durable outcome, by `operation`.
pub(crate) const OPERATION_SECONDS: &str = "scoria_operation_duration_seconds";
/// Operations that wait for a slot of their `lane`.
pub(crate) const LANE_WAITING: &str = "scoria_lane_waiting";
/// Operations that run in a `lane`.
pub(crate) const LANE_RUNNING: &str = "scoria_lane_running";
/// Requests that were refused before they began, by `reason`.
pub(crate) const REFUSED: &str = "scoria_requests_refused_total";
/// Requests handed back to the queue, by `reason`.
pub(crate) const HANDED_BACK: &str = "scoria_requests_handed_back_total";

/// 1 while a `backend` takes no work because its lock service or its database is away.
pub(crate) const ISOLATED: &str = "scoria_isolated";

/// Registers help texts with the recorder.
pub fn describe() {
    metrics::describe_counter!(OPERATIONS, "Operations that ended, by operation and outcome");
    metrics::describe_histogram!(OPERATION_SECONDS, metrics::Unit::Seconds, "Duration of operations");
    metrics::describe_gauge!(LANE_WAITING, "Operations waiting for a slot of their lane");
    metrics::describe_gauge!(LANE_RUNNING, "Operations running in a lane");
    metrics::describe_counter!(REFUSED, "Requests refused before they began, by reason");
    metrics::describe_counter!(HANDED_BACK, "Requests handed back to the queue, by reason");
    metrics::describe_gauge!(ISOLATED, "1 while no work is taken because lock service or database are away");
}
