//! Attachments (`cinder/api/v3/views/attachments.py`).

use scoria_model::{Attachment, Timestamp};
use serde_json::{Map, Value, json};

/// One line of a list without details.
pub(crate) fn summary(attachment: &Attachment) -> Map<String, Value> {
    let view = json!({
        "id": attachment.id.as_str(),
        "status": attachment.attach_status.as_str(),
        "instance": attachment.instance_uuid,
        "volume_id": attachment.volume_id.as_str(),
    });
    match view {
        Value::Object(view) => view,
        _ => Map::new(),
    }
}

/// An attachment with what the server needs to reach the volume.
pub(crate) fn detail(attachment: &Attachment) -> Map<String, Value> {
    let mut view = summary(attachment);
    let time = |at: Option<Timestamp>| Value::from(at.map(Timestamp::to_iso_micros).unwrap_or_default());
    view.insert("attached_at".to_owned(), time(attachment.attach_time));
    view.insert("detached_at".to_owned(), time(attachment.detach_time));
    view.insert("attach_mode".to_owned(), attachment.attach_mode.clone().into());
    view.insert("connection_info".to_owned(), attachment.connection_info.clone().unwrap_or_default().into());
    view
}

#[cfg(test)]
mod tests {
    use scoria_model::{AttachmentId, VolumeId};

    use super::*;

    #[test]
    fn times_that_never_came_are_empty_texts() {
        let view = detail(&Attachment::new(AttachmentId::random(), VolumeId::random()));
        assert_eq!((&view["attached_at"], &view["status"]), (&json!(""), &json!("reserved")));
        assert_eq!(view["connection_info"], json!({}));
    }
}
