//! Opens one connection to one broker.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};

use super::options::{BrokerHost, LoginMethod, RabbitOptions};

/// How long a broker may take from the first packet to an open connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where to connect and as whom, apart from the host.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) virtual_host: String,
    pub(super) process_name: String,
    pub(super) rabbit: RabbitOptions,
    pub(super) tls: Option<RustlsConnector>,
}

/// A second handle on the socket. lapin drives each connection on a thread of its own that nothing but the end of the socket
/// stops: a broker that accepts and then says nothing would cost a thread per attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Socket(Arc<Mutex<Handle>>);

#[derive(Debug, Default)]
struct Handle {
    stream: Option<TcpStream>,
    cut: bool,
}

impl Socket {
    fn set(&self, stream: TcpStream) {
        let mut handle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handle.stream = Some(stream);
        // Given up before it was connected.
        if handle.cut {
            handle.shut();
        }
    }

    /// Ends the connection without asking the broker.
    pub(super) fn cut(&self) {
        let mut handle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handle.cut = true;
        handle.shut();
    }
}

impl Handle {
    fn shut(&mut self) {
        if let Some(stream) = self.stream.take() {
            // It fails only where the socket is already gone.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Cuts the socket of a try that failed, took too long or was dropped.
struct Attempt(Option<Socket>);

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.cut();
        }
    }
}

/// Connects, logs in and opens the virtual host.
///
/// # Errors
/// Why not, for an operator.
pub(super) async fn open(host: &BrokerHost, access: &Access) -> Result<(Connection, Socket), String> {
    let socket = Socket::default();
    let mut attempt = Attempt(Some(socket.clone()));
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, connect(host, access, socket.clone())).await;
    match opened {
        Ok(Ok(connection)) => {
            attempt.0 = None;
            Ok((connection, socket))
        }
        Ok(Err(error)) => Err(explain(host, access, &error)),
        Err(_) => Err(format!("{host}: no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

async fn connect(host: &BrokerHost, access: &Access, socket: Socket) -> Result<Connection, lapin::Error> {
    let heartbeat = access.rabbit.heartbeat_timeout_threshold.as_secs().min(u16::MAX.into());
    let uri = AMQPUri {
        scheme: if access.tls.is_some() { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: host.username.clone(), password: host.password.clone() },
            host: host.host.clone(),
            port: host.port,
        },
        vhost: access.virtual_host.clone(),
        query: AMQPQueryString {
            heartbeat: u16::try_from(heartbeat).ok(),
            auth_mechanism: Some(match access.rabbit.rabbit_login_method {
                LoginMethod::AmqPlain => SASLMechanism::AMQPlain,
                LoginMethod::Plain => SASLMechanism::Plain,
                LoginMethod::External => SASLMechanism::External,
            }),
            ..AMQPQueryString::default()
        },
    };
    let name = format!("{}:{}:{}", access.process_name, std::process::id(), uuid::Uuid::new_v4());
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "Scoria".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let tls = access.tls.clone();
    Connection::connector(
        uri,
        lapin::runtime::default_runtime()?,
        async move |uri, runtime| {
            let addresses = runtime.to_socket_addrs((uri.authority.host.clone(), uri.authority.port));
            let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                socket.set(plain.get_ref().as_fd().try_clone_to_owned()?.into());
            }
            match &tls {
                Some(tls) => Ok(stream.into_rustls(tls, &uri.authority.host).await?),
                None => Ok(stream),
            }
        },
        properties,
    )
    .await
}

/// The error with what an operator can do about it.
fn explain(host: &BrokerHost, access: &Access, error: &lapin::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::ProtocolError(error) => match error.get_id() {
            403 if access.rabbit.rabbit_login_method == LoginMethod::External => {
                ": is the name in ssl_cert_file a user of the broker?".to_owned()
            }
            403 => format!(": check user {:?} and its password in transport_url", host.username),
            530 => {
                format!(": check virtual host {:?} in transport_url and the user's permissions", access.virtual_host)
            }
            _ => String::new(),
        },
        ErrorKind::IOError(error) if error.kind() == std::io::ErrorKind::InvalidData && access.tls.is_some() => {
            ": TLS failed; check [oslo_messaging_rabbit] ssl_ca_file, and that the certificate names this host (or set \
             ssl_enforce_hostname_verification = false)"
                .to_owned()
        }
        ErrorKind::IOError(_) if access.tls.is_none() && host.port == 5671 => {
            ": port 5671 usually speaks TLS; is [oslo_messaging_rabbit] ssl set?".to_owned()
        }
        _ => String::new(),
    };
    format!("{host}: {error}{hint}")
}
