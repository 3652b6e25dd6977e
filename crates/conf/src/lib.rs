//! oslo.config files to typed options: what `cinder.conf` says, checked, with the place of every value.
//!
//! [`Config::load`] reads command line, environment and files as oslo.config does ([`LoadArgs`]) into plain structs;
//! [`Config::reload`] follows SIGHUP; [`check()`] names everything that is wrong with a set of files; [`Config::show`] tells where
//! each effective value comes from; [`sample()`] writes the commented sample. Each option is declared once, in [`options`].
//!
//! What it is not: it opens no database, no broker and no lock service, and does not know what their URLs mean, apart from
//! `transport_url`, whose query may set options.

mod check;
mod config;
mod error;
mod from_value;
pub mod ini;
mod interpolate;
pub mod options;
pub mod python_logging;
mod reload;
mod resolve;
mod sample;
mod show;
mod source;
pub mod types;

pub use check::{Finding, Severity, check};
pub use config::Config;
pub use error::{Error, WrongValue};
pub use options::{
    Backend, BackendOptions, ConcurrencyOptions, CoordinationOptions, DatabaseOptions, DefaultOptions, Driver,
    ImageOptions, LogOptions, Messaging, Notifications, OverSubscription, QuotaOptions, RabbitOptions, ScoriaOptions,
    SecureMode, Transport, TransportHost, TransportUrl,
};
pub use reload::{Change, Reload};
pub use sample::sample;
pub use show::Shown;
pub use source::{LoadArgs, Origin, Source};
