//! Requests: their broker and their times.

use std::time::Duration;

use secrecy::SecretString;

use super::spec::{BOOL, INT, OptionGroup, STR, options};
use super::{RabbitOptions, TransportUrl};
use crate::error::Error;
use crate::resolve::{Reader, Resolver};

options! {
    /// `[DEFAULT]`: requests (`oslo_messaging/transport.py`, `oslo_messaging/rpc/client.py`).
    pub struct RpcOptions in "DEFAULT" => {
        /// The broker: `rabbit://USER:PASSWORD@HOST:PORT,…/VIRTUAL_HOST?OPTION=VALUE`. The options are those of
        /// `[oslo_messaging_rabbit]` and win over that group. `memory://` stays within the process.
        transport_url: SecretString = STR.default("rabbit://").secret();
        /// The exchange of all requests. All services must agree.
        control_exchange: String = STR.default("openstack");
        /// Seconds to wait for the answer to a request.
        rpc_response_timeout: Duration = INT.default("60");
        /// How many requests each server of the service works on at a time.
        executor_thread_pool_size: usize = INT.default("64").deprecated(&[("", "rpc_thread_pool_size")]);
        /// Whether the method `oslo_rpc_server_ping` answers.
        rpc_ping_enabled: bool = BOOL.default("false");
    }
}

/// Requests, ready to use.
#[derive(Debug, Clone)]
pub struct Messaging {
    /// The broker.
    pub transport_url: TransportUrl,
    /// The exchange of all requests.
    pub control_exchange: String,
    /// How long to wait for an answer.
    pub rpc_response_timeout: Duration,
    /// How many requests each server works on at a time.
    pub executor_thread_pool_size: usize,
    /// Whether the method `oslo_rpc_server_ping` answers.
    pub rpc_ping_enabled: bool,
    /// `[oslo_messaging_rabbit]` under the options of the URL's query.
    pub rabbit: RabbitOptions,
}

impl Messaging {
    pub(crate) fn read(resolver: &Resolver) -> Result<Self, Error> {
        let reader = Reader::new(resolver, None);
        let options = RpcOptions::read(&reader)?;
        let transport_url = TransportUrl::of_option("DEFAULT", &options.transport_url, resolver)?;
        let rabbit = RabbitOptions::read(&reader.with_overrides(transport_url.overrides(resolver)?))?;
        Ok(Self {
            transport_url,
            control_exchange: options.control_exchange,
            rpc_response_timeout: options.rpc_response_timeout,
            executor_thread_pool_size: options.executor_thread_pool_size,
            rpc_ping_enabled: options.rpc_ping_enabled,
            rabbit,
        })
    }
}
