//! Services (`cinder/api/v3/services.py`).

use scoria_model::{Service, Timestamp};
use serde_json::{Value, json};

use super::time;
use crate::volume::microversion::Microversion;

/// A service; it is up when its last heartbeat is at most `down_time` seconds old.
pub(crate) fn service(service: &Service, now: Timestamp, down_time: i64, version: Microversion) -> Value {
    let beat = service.updated_at.or(service.created_at);
    let alive = beat.is_some_and(|beat| now.seconds_since(beat).abs() <= down_time);
    let mut view = json!({
        "binary": service.binary,
        "host": service.host,
        "zone": service.availability_zone,
        "status": if service.disabled { "disabled" } else { "enabled" },
        "state": if alive { "up" } else { "down" },
        "updated_at": time(service.updated_at),
        "disabled_reason": service.disabled_reason,
    });
    if version.has(7) {
        view["cluster"] = service.cluster_name.clone().into();
    }
    if service.binary == "cinder-volume" {
        view["replication_status"] = service.replication_status.clone().into();
        view["active_backend_id"] = service.active_backend_id.clone().into();
        view["frozen"] = service.frozen.into();
        if version.has(49) {
            view["backend_state"] = if alive { "up" } else { "down" }.into();
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_heartbeats_is_down() {
        let now = Timestamp::now();
        let mut row = Service {
            id: 1,
            uuid: None,
            host: "n@b".to_owned(),
            binary: "cinder-volume".to_owned(),
            topic: None,
            cluster_name: None,
            report_count: 0,
            disabled: false,
            disabled_reason: None,
            availability_zone: Some("nova".to_owned()),
            rpc_current_version: None,
            object_current_version: None,
            replication_status: None,
            frozen: false,
            active_backend_id: None,
            created_at: Some(now.plus_seconds(-100)),
            updated_at: Some(now.plus_seconds(-60)),
        };
        assert_eq!(service(&row, now, 60, Microversion::MAX)["state"], "up");
        row.updated_at = Some(now.plus_seconds(-61));
        assert_eq!(service(&row, now, 60, Microversion::MAX)["state"], "down");
        assert_eq!(service(&row, now, 60, Microversion::MIN).get("cluster"), None);
    }
}
