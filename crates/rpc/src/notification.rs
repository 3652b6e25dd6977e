//! Notifications (`oslo_messaging/notify/notifier.py: Notifier._notify`).

use scoria_model::{MessageId, RequestContext, Timestamp};
use serde_json::{Map, Value, json};

use crate::Notification;
use crate::envelope::{add_context, seal};

/// Writes a notification. With `envelope` it is in the 2.0 envelope (driver `messagingv2`), without it is bare
/// (driver `messaging`).
#[must_use]
pub fn encode_notification(notification: &Notification, envelope: bool) -> Vec<u8> {
    let mut message = Map::from_iter([
        ("message_id".to_owned(), uuid::Uuid::new_v4().to_string().into()),
        ("publisher_id".to_owned(), notification.publisher_id.clone().into()),
        ("event_type".to_owned(), notification.event_type.clone().into()),
        ("priority".to_owned(), notification.priority.into()),
        ("payload".to_owned(), notification.payload.clone()),
        ("timestamp".to_owned(), Timestamp::now_precise().to_python_str().into()),
        ("_unique_id".to_owned(), MessageId::random_hex().as_str().into()),
    ]);
    add_context(&mut message, redacted(&notification.context));
    let message = Value::Object(message);
    if envelope { seal(&message) } else { message.to_string().into_bytes() }
}

/// The context without what must not reach the notification bus: only these keys leave, with the token and the
/// catalogue blanked (`oslo_context/context.py: RequestContext.redacted_copy`).
fn redacted(context: &RequestContext) -> Map<String, Value> {
    const KEPT: [&str; 19] = [
        "user",
        "user_id",
        "project",
        "project_id",
        "project_name",
        "domain",
        "domain_id",
        "user_domain",
        "project_domain",
        "system_scope",
        "is_admin",
        "is_admin_project",
        "read_only",
        "show_deleted",
        "request_id",
        "global_request_id",
        "resource_uuid",
        "roles",
        "user_identity",
    ];
    const BLANKED: [&str; 6] = [
        "auth_token",
        "remote_address",
        "quota_class",
        "message_resource_id",
        "message_resource_type",
        "message_action",
    ];
    let all = context.to_map();
    let mut kept: Map<String, Value> = all.into_iter().filter(|(key, _)| KEPT.contains(&key.as_str())).collect();
    kept.extend(BLANKED.map(|key| (key.to_owned(), Value::Null)));
    kept.insert("service_catalog".to_owned(), json!([]));
    kept.insert("read_deleted".to_owned(), "no".into());
    kept.insert("timestamp".to_owned(), Timestamp::now_precise().to_iso_micros().into());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::open;

    #[test]
    fn both_forms_carry_the_same_and_no_secret() {
        let mut context = RequestContext::user("u", "p");
        context.raw.insert("auth_token".to_owned(), "gAAAA-secret".into());
        context.raw.insert("service_catalog".to_owned(), json!([{"endpoint": "secret"}]));
        context.raw.insert("trace_info".to_owned(), json!({"hmac_key": "secret"}));
        let notification = Notification {
            publisher_id: "volume.hosta@nfs1".to_owned(),
            event_type: "volume.create.start".to_owned(),
            priority: "INFO",
            payload: json!({"volume_id": "v"}),
            context,
        };
        for envelope in [true, false] {
            let body = encode_notification(&notification, envelope);
            let text = String::from_utf8(body.clone()).unwrap();
            assert!(!text.contains("secret"), "{text}");
            assert_eq!(text.contains("oslo.version"), envelope);
            let message = open(&body).unwrap();
            assert_eq!(message["event_type"], "volume.create.start");
            assert_eq!(message["payload"]["volume_id"], "v");
            assert_eq!(message["_context_user_id"], "u");
            assert_eq!(message["_context_auth_token"], Value::Null);
        }
    }
}
