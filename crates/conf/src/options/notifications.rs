//! `[oslo_messaging_notifications]`.

use secrecy::SecretString;

use super::TransportUrl;
use super::spec::{INT, LIST, MULTI_STR, OptionGroup, STR, options};
use crate::error::Error;
use crate::resolve::{Reader, Resolver};

options! {
    /// `[oslo_messaging_notifications]` (`oslo_messaging/notify/notifier.py`).
    pub struct NotificationOptions in "oslo_messaging_notifications" => {
        /// How notifications are sent: `messagingv2`, `messaging`, `log`, `noop`; may be given several times. Unset: not at all.
        driver: Vec<String> = MULTI_STR;
        /// The broker for notifications. Unset: that of `[DEFAULT] transport_url`.
        transport_url: Option<SecretString> = STR.secret();
        /// The topics to send to; each becomes the queues TOPIC.PRIORITY.
        topics: Vec<String> = LIST.default("notifications");
        /// How many times a notification is repeated that could not be sent; -1: without end.
        retry: i64 = INT.default("-1");
    }
}

/// Notifications, ready to use.
#[derive(Debug, Clone)]
pub struct Notifications {
    /// The drivers, in order; empty: none are sent.
    pub drivers: Vec<String>,
    /// The broker, when it is not the one of the requests.
    pub transport_url: Option<TransportUrl>,
    /// The topics.
    pub topics: Vec<String>,
    /// How many times a failed one is repeated; -1: without end.
    pub retry: i64,
}

impl Notifications {
    pub(crate) fn read(resolver: &Resolver) -> Result<Self, Error> {
        let options = NotificationOptions::read(&Reader::new(resolver, None))?;
        let url =
            options.transport_url.map(|url| TransportUrl::of_option("oslo_messaging_notifications", &url, resolver));
        Ok(Self {
            drivers: options.driver,
            transport_url: url.transpose()?,
            topics: options.topics,
            retry: options.retry,
        })
    }
}
