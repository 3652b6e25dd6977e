//! Every option that Scoria reads, declared once: name, type, default, help. The struct field, the sample file, the checks
//! and the documentation all come from that one declaration.

mod backend;
mod concurrency;
mod coordination;
mod database;
mod default;
mod image;
mod known;
mod log;
mod messaging;
mod notifications;
mod nova;
mod quota;
mod rabbit;
mod scoria;
mod spec;
mod transport_url;
mod unused;

pub use backend::{Backend, BackendOptions, Driver, OverSubscription, SecureMode};
pub use concurrency::ConcurrencyOptions;
pub use coordination::CoordinationOptions;
pub use database::DatabaseOptions;
pub use default::DefaultOptions;
pub use image::ImageOptions;
pub use known::{is_known, known_names};
pub use log::LogOptions;
pub use messaging::{Messaging, RpcOptions};
pub use notifications::{NotificationOptions, Notifications};
pub use nova::NovaOptions;
pub use quota::QuotaOptions;
pub use rabbit::RabbitOptions;
pub use scoria::ScoriaOptions;
pub use spec::{BACKEND_DEFAULTS, DefaultText, OptionGroup, OptionSpec};
pub use transport_url::{Transport, TransportHost, TransportUrl};
pub use unused::without_effect;

/// Every option, group by group, in the order of the sample.
pub fn all() -> impl Iterator<Item = &'static OptionSpec> {
    [
        DefaultOptions::specs(),
        LogOptions::specs(),
        RpcOptions::specs(),
        ImageOptions::specs(),
        QuotaOptions::specs(),
        BackendOptions::specs(),
        CoordinationOptions::specs(),
        DatabaseOptions::specs(),
        ConcurrencyOptions::specs(),
        NotificationOptions::specs(),
        RabbitOptions::specs(),
        NovaOptions::specs(),
        ScoriaOptions::specs(),
    ]
    .into_iter()
    .flatten()
}

/// The option of that name in a group; the group of back-end options is [`BACKEND_DEFAULTS`].
#[must_use]
pub fn find(group: &str, name: &str) -> Option<&'static OptionSpec> {
    all().find(|spec| spec.group == group && spec.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_option_is_declared_twice_and_all_are_explained() {
        let mut seen = BTreeSet::new();
        for spec in all() {
            assert!(seen.insert((spec.group, spec.name)), "[{}] {} twice", spec.group, spec.name);
            assert!(spec.help.trim().len() > 10, "[{}] {} wants help", spec.group, spec.name);
        }
    }
}
