//! Addresses.

/// What one RPC server listens to. It consumes three queues: `topic`, `topic.server` and a fanout queue of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Topic.
    pub topic: String,
    /// Server.
    pub server: String,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Any server of the topic.
    Topic(String),
    /// One server (or one cluster) of the topic: routing key `topic.server`.
    Server(Target),
    /// Every server of the topic.
    Fanout(String),
}

impl Target {
    /// A target.
    #[must_use]
    pub fn new(topic: impl Into<String>, server: impl Into<String>) -> Self {
        Self { topic: topic.into(), server: server.into() }
    }
}

impl Destination {
    /// Where requests for volumes of `service_topic_queue` (a host or a cluster, with or without pool) go:
    /// `cinder-volume.<host@backend>.<host>` (`cinder/volume/rpcapi.py: VolumeAPI._get_cctxt`).
    #[must_use]
    pub fn volume(service_topic_queue: &str) -> Self {
        let server = service_topic_queue.split('#').next().unwrap_or_default();
        let host = server.split('@').next().unwrap_or_default();
        Self::Server(Target::new(format!("cinder-volume.{server}"), host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_s_requests_go_to_its_back_end_s_host_queue() {
        let expected = Destination::Server(Target::new("cinder-volume.hosta@nfs1", "hosta"));
        assert_eq!(Destination::volume("hosta@nfs1#pool"), expected);
    }
}
