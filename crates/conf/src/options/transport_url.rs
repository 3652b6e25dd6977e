//! `transport_url` (`oslo_messaging/transport.py: TransportURL.parse`).

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::RabbitOptions;
use super::spec::OptionGroup;
use crate::error::Error;
use crate::resolve::Resolver;
use crate::source::{Located, Origin};

/// By what messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RabbitMQ: `rabbit://`, `amqp://`, `kombu+rabbit://`, `kombu+amqp://`.
    Rabbit,
    /// Within the process: `memory://`, `fake://`, `kombu+memory://`.
    Memory,
}

/// One broker.
#[derive(Debug, Clone)]
pub struct TransportHost {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User, `guest` when the URL has none.
    pub username: String,
    /// Password, `guest` when the URL has none.
    pub password: SecretString,
}

/// A transport URL, taken apart and percent-decoded.
#[derive(Debug, Clone)]
pub struct TransportUrl {
    /// By what.
    pub transport: Transport,
    /// The brokers, at least one for [`Transport::Rabbit`].
    pub hosts: Vec<TransportHost>,
    /// The virtual host, `/` when the URL has none.
    pub virtual_host: String,
    /// The query's options; a repeated one's values are joined with commas.
    pub query: BTreeMap<String, String>,
}

impl TransportUrl {
    /// Takes `url` apart.
    ///
    /// # Errors
    /// Half a sentence that follows `transport_url = ***`; it never repeats what stands in the URL's user part.
    pub fn parse(url: &str) -> Result<Self, String> {
        const FORM: &str = "rabbit://USER:PASSWORD@HOST:PORT/VIRTUAL_HOST";
        let (scheme, rest) = url.split_once(':').ok_or_else(|| format!("has no scheme; write {FORM}"))?;
        let transport = match scheme {
            "rabbit" | "amqp" | "kombu+rabbit" | "kombu+amqp" => Transport::Rabbit,
            "memory" | "fake" | "kombu+memory" => Transport::Memory,
            _ => return Err(format!("has a scheme that is neither 'rabbit' nor 'memory'; write {FORM}")),
        };
        let rest = rest.strip_prefix("//").ok_or_else(|| format!("has no '//' after its scheme; write {FORM}"))?;
        if rest.contains('#') {
            return Err(
                "contains a '#'; write it as %23 (and '/' as %2F, '?' as %3F) in names and passwords".to_owned()
            );
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let parts = authority.split(',').filter(|part| !part.is_empty());
        let mut hosts = parts.map(host).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() && transport == Transport::Rabbit {
            hosts.push(host("localhost")?);
        }
        let virtual_host = match decoded(path)? {
            name if name.is_empty() => "/".to_owned(),
            name => name,
        };
        Ok(Self { transport, hosts, virtual_host, query: parse_query(query)? })
    }

    /// Takes the value of a group's `transport_url` apart.
    pub(crate) fn of_option(group: &str, url: &SecretString, resolver: &Resolver) -> Result<Self, Error> {
        Self::parse(url.expose_secret()).map_err(|problem| resolver.complaint(group, "transport_url", problem))
    }

    /// The query's options as those of `[oslo_messaging_rabbit]`.
    pub(crate) fn overrides(&self, resolver: &Resolver) -> Result<BTreeMap<String, Located>, Error> {
        if let Some(name) = self.query.keys().find(|name| !RabbitOptions::specs().iter().any(|spec| spec.name == *name))
        {
            let problem = format!("its query sets '{name}', which is no option of [oslo_messaging_rabbit]");
            return Err(resolver.complaint("DEFAULT", "transport_url", problem));
        }
        let spec = super::find("DEFAULT", "transport_url");
        let resolved = spec.and_then(|spec| resolver.get(spec, "DEFAULT").ok());
        let origin = resolved.map_or(Origin::Default, |resolved| resolved.origin);
        Ok(self.query.iter().map(|(name, text)| (name.clone(), (text.clone(), origin.clone()))).collect())
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "has percent-encoded bytes that are not UTF-8")?;
    Ok(text.into_owned())
}

/// `user:password@host:port`; all but the host may be absent.
fn host(text: &str) -> Result<TransportHost, String> {
    let (credentials, address) = text.rsplit_once('@').unwrap_or(("", text));
    let (username, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or("has text between ']' and ':PORT'")?)),
            None => return Err("has an IPv6 address whose '[' is not closed".to_owned()),
        },
        // Several colons without brackets are an IPv6 address without a port.
        None if address.matches(':').count() == 1 => {
            let (host, port) = address.split_once(':').unwrap_or((address, ""));
            (host, Some(port))
        }
        None => (address, None),
    };
    let port = match port {
        None => 5672,
        Some(port) => port.parse().map_err(|_| "has a port that is not a number up to 65535".to_owned())?,
    };
    let or = |text: String, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text };
    Ok(TransportHost {
        host: or(host.to_owned(), "localhost"),
        port,
        username: or(decoded(username)?, "guest"),
        password: or(decoded(password)?, "guest").into(),
    })
}

/// `a=1&b=2`. Options without a value are dropped, as Python's `parse_qs` does.
fn parse_query(query: &str) -> Result<BTreeMap<String, String>, String> {
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(_, value)| !value.is_empty())
    {
        let value = decoded(&value.replace('+', " "))?;
        let joined = options.entry(decoded(&name.replace('+', " "))?).or_default();
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(&value);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hosts(url: &str) -> Vec<(String, u16, String, String)> {
        let hosts = TransportUrl::parse(url).unwrap().hosts.into_iter();
        hosts.map(|h| (h.host, h.port, h.username, h.password.expose_secret().to_owned())).collect()
    }

    fn host(host: &str, port: u16, user: &str, password: &str) -> (String, u16, String, String) {
        (host.to_owned(), port, user.to_owned(), password.to_owned())
    }

    #[test]
    fn one_broker_or_several() {
        assert_eq!(hosts("rabbit://"), [host("localhost", 5672, "guest", "guest")]);
        assert_eq!(
            hosts("rabbit://u:p%40%2Fw@h1:1,u:a@b@[::1]:2,[fe80::1],2001:db8::1/v"),
            [
                host("h1", 1, "u", "p@/w"),
                host("::1", 2, "u", "a@b"),
                host("fe80::1", 5672, "guest", "guest"),
                host("2001:db8::1", 5672, "guest", "guest"),
            ]
        );
        assert!(hosts("kombu+memory:///").is_empty());
    }

    #[test]
    fn virtual_host_and_query() {
        let url = TransportUrl::parse("rabbit://h/%2Fvol?ssl=true&heartbeat_rate=&a=1&a=2").unwrap();
        assert_eq!(url.virtual_host, "/vol");
        let expected = [("a", "1,2"), ("ssl", "true")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(url.query, expected.into());
        assert_eq!(TransportUrl::parse("rabbit://h/").unwrap().virtual_host, "/");
    }

    #[test]
    fn a_wrong_url_is_explained_without_its_password() {
        for url in [
            "h",
            "kafka://u:secret@h",
            "rabbit:u:secret@h",
            "rabbit://u:secret@h:x",
            "rabbit://u:sec#ret@h",
            "rabbit://u:secret@[::1",
        ] {
            let problem = TransportUrl::parse(url).unwrap_err();
            assert!(!problem.contains("secret"), "{url}: {problem}");
        }
        assert!(!format!("{:?}", TransportUrl::parse("rabbit://u:secret@h")).contains("secret"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "rabbit://([a-z:@\\[\\],/?&=%+#0-9]|\\PC)*") {
            let _ = TransportUrl::parse(&text);
        }
    }
}
