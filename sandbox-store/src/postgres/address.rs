//! Where a server is, as a URL says it.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use tokio_postgres::{
    Config,
    config::{ChannelBinding, Host, SslMode, SslNegotiation},
};

use super::PostgresOpenError;

const PORT: u16 = 5432;

/// A server's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Unix(PathBuf),
    Name(String, u16),
    Ip(IpAddr, u16),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Ip(IpAddr::V4(ip), port) => write!(f, "{ip}:{port}"),
            Self::Ip(IpAddr::V6(ip), port) => write!(f, "[{ip}]:{port}"),
        }
    }
}

/// A database and the servers that may have it, in the order they are tried.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// Who to be and which database to use; its `Debug` leaves the password out.
    pub(super) config: Config,
    pub(super) endpoints: Vec<Endpoint>,
}

impl Address {
    pub(super) fn of(url: &str) -> Result<Self, PostgresOpenError> {
        // Asked of the text, since not every such word is one that the parser knows.
        if wants_tls(url) {
            return Err(PostgresOpenError::TlsUnsupported);
        }
        let mut config: Config = url.parse().map_err(PostgresOpenError::Url)?;
        if config.get_ssl_mode() == SslMode::Require
            || config.get_ssl_negotiation() == SslNegotiation::Direct
            || config.get_channel_binding() == ChannelBinding::Require
        {
            return Err(PostgresOpenError::TlsUnsupported);
        }
        config.ssl_mode(SslMode::Disable);
        if config.get_application_name().is_none() {
            config.application_name("sandbox");
        }
        let endpoints = endpoints(&config)?;
        Ok(Self { config, endpoints })
    }
}

/// Whether a URL or a list of `key=value` asks for an encrypted connection.
fn wants_tls(url: &str) -> bool {
    url.split(|c: char| matches!(c, '?' | '&') || c.is_whitespace())
        .filter_map(|part| part.split_once('='))
        .any(|(key, value)| {
            let value = value.trim_matches('\'');
            key == "sslmode" && (value == "require" || value.starts_with("verify"))
        })
}

fn endpoints(config: &Config) -> Result<Vec<Endpoint>, PostgresOpenError> {
    let (hosts, ips, ports) = (
        config.get_hosts(),
        config.get_hostaddrs(),
        config.get_ports(),
    );
    let count = hosts.len().max(ips.len());
    if count == 0 {
        return Err(PostgresOpenError::Host("names no server".to_owned()));
    }
    if ports.len() > 1 && ports.len() != count
        || !hosts.is_empty() && !ips.is_empty() && hosts.len() != ips.len()
    {
        let counts = "has different numbers of servers, addresses and ports";
        return Err(PostgresOpenError::Host(counts.to_owned()));
    }
    let endpoint = |index: usize| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(PORT);
        match (ips.get(index), hosts.get(index)) {
            (Some(ip), _) => Some(Endpoint::Ip(*ip, port)),
            (None, Some(Host::Tcp(host))) => Some(Endpoint::Name(host.clone(), port)),
            (None, Some(Host::Unix(folder))) => Some(Endpoint::Unix(socket(folder, port))),
            (None, None) => None,
        }
    };
    Ok((0..count).filter_map(endpoint).collect())
}

/// The socket that a server makes in its folder.
fn socket(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> Vec<String> {
        let address = Address::of(url).unwrap();
        address.endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_are_where_the_url_says() {
        let cases = [
            ("postgres://u@db/x", vec!["db:5432"]),
            ("postgres://u@db:6000/x", vec!["db:6000"]),
            ("postgres://u@a,b:7/x", vec!["a:5432", "b:7"]),
            ("host=a,b port=9 user=u", vec!["a:9", "b:9"]),
            ("host=a hostaddr=::1 user=u", vec!["[::1]:5432"]),
            ("postgres:///x?host=/run/pg", vec!["/run/pg/.s.PGSQL.5432"]),
            ("postgres://u@%2Frun%2Fpg:1/x", vec!["/run/pg/.s.PGSQL.1"]),
        ];
        for (url, expected) in cases {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn a_url_that_asks_for_tls_is_refused_and_others_are_not() {
        for asks in [
            "postgres://u@db/x?sslmode=require",
            "postgres://u@db/x?a=b&sslmode=verify-ca",
            "host=db user=u sslmode='verify-full'",
            "postgres://u@db/x?channel_binding=require",
            "postgres://u@db/x?sslmode=require&sslnegotiation=direct",
        ] {
            let refused = Address::of(asks);
            let tls = matches!(refused, Err(PostgresOpenError::TlsUnsupported));
            assert!(tls, "{asks}: {refused:?}");
        }
        for fine in ["?sslmode=disable", "?sslmode=prefer", ""] {
            shown(&format!("postgres://u@db/sslmode=require{fine}"));
        }
    }

    #[test]
    fn a_url_without_server_or_sense_is_refused_without_its_password() {
        let host = Address::of("postgres://");
        assert!(matches!(host, Err(PostgresOpenError::Host(_))), "{host:?}");
        let uneven = Address::of("host=a,b,c port=1,2 user=u");
        assert!(
            matches!(uneven, Err(PostgresOpenError::Host(_))),
            "{uneven:?}"
        );
        let url = Address::of("postgres://u:secret@db/x?nonsense=1").unwrap_err();
        assert!(matches!(url, PostgresOpenError::Url(_)), "{url:?}");
        assert!(!format!("{url:?}").contains("secret"));
        let address = Address::of("postgres://u:secret@db/x").unwrap();
        assert!(!format!("{address:?}").contains("secret"));
    }
}
