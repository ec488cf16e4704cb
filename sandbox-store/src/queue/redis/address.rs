//! Where a server is, as a URL says it.

use std::{path::Path, sync::Arc};

use fred::types::config::{Config, ServerConfig, TlsConnector};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use url::{Host, Url};

const PORT: u16 = 6379;

/// What makes no sense in a URL. Never shows a part of it that may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedisUrlError {
    /// It is none.
    #[error("it is no URL ({0}); expected redis://HOST:PORT/DATABASE or redis+unix:///PATH")]
    Syntax(url::ParseError),
    /// Its scheme is another one's.
    #[error("`{0}://` is not known here; expected redis://, rediss:// (TLS) or redis+unix://")]
    Scheme(String),
    /// It names no server.
    #[error("it names no host; expected redis://HOST:PORT/DATABASE")]
    NoHost,
    /// It names no socket.
    #[error("it names no socket; expected redis+unix:///PATH")]
    NoSocket,
    /// What follows the server is no database's number.
    #[error("its path is no database's number (0 to 255), as in redis://HOST:PORT/0")]
    Database,
    /// There is more in it.
    #[error("it has settings after a `?` or `#`, and none is known here")]
    Extra,
    /// User or password have percent signs that stand for no text.
    #[error("its user or password is no text once `%` is resolved (write `%` itself as %25)")]
    Credentials,
    /// Certificates that this system trusts can't be read.
    #[error("this system's trusted certificates can't be used for TLS: {0}")]
    Certificates(String),
}

/// A server and who to be there.
pub(super) struct Address {
    pub(super) config: Config,
    /// The server, for people.
    pub(super) endpoint: String,
}

impl Address {
    pub(super) fn of(text: &str) -> Result<Self, RedisUrlError> {
        let url = Url::parse(text).map_err(RedisUrlError::Syntax)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RedisUrlError::Extra);
        }
        let tls = url.scheme() == "rediss";
        let (server, database, endpoint) = match url.scheme() {
            "redis" | "rediss" => {
                let host = host(&url).ok_or(RedisUrlError::NoHost)?;
                let port = url.port().unwrap_or(PORT);
                let endpoint = format!("{host}:{port}");
                let server = ServerConfig::new_centralized(plain(&host), port);
                (server, database(url.path())?, endpoint)
            }
            "redis+unix" => {
                let path = text_of(url.path()).ok_or(RedisUrlError::NoSocket)?;
                if !Path::new(&path).is_absolute() || path.ends_with('/') {
                    return Err(RedisUrlError::NoSocket);
                }
                (
                    ServerConfig::Unix {
                        path: path.clone().into(),
                    },
                    None,
                    path,
                )
            }
            other => return Err(RedisUrlError::Scheme(other.to_owned())),
        };
        let word = |text: &str| match text {
            "" => Ok(None),
            text => text_of(text).map(Some).ok_or(RedisUrlError::Credentials),
        };
        let config = Config {
            server,
            database,
            username: word(url.username())?,
            password: word(url.password().unwrap_or_default())?,
            tls: if tls { Some(connector()?.into()) } else { None },
            ..Config::default()
        };
        Ok(Self { config, endpoint })
    }
}

/// The host as a URL writes it. One of a scheme that the URL standard does not know is not looked at
/// by it.
fn host(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain("") => None,
        host => Some(host.to_string()),
    }
}

/// Without the brackets of an IPv6 address.
fn plain(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn database(path: &str) -> Result<Option<u8>, RedisUrlError> {
    match path.strip_prefix('/').unwrap_or(path) {
        "" => Ok(None),
        number => number
            .parse()
            .map(Some)
            .map_err(|_| RedisUrlError::Database),
    }
}

/// Resolves `%41` and the like.
fn text_of(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// TLS that trusts what this system trusts (or the files that `SSL_CERT_FILE` and `SSL_CERT_DIR`
/// name).
fn connector() -> Result<TlsConnector, RedisUrlError> {
    let unusable = |error: String| RedisUrlError::Certificates(error);
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(ToString::to_string);
        return Err(unusable(why.unwrap_or_else(|| "there are none".to_owned())));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_where_the_url_says() {
        for (url, endpoint, database) in [
            ("redis://cache", "cache:6379", None),
            ("redis://cache/", "cache:6379", None),
            ("redis://cache:7000/3", "cache:7000", Some(3)),
            ("redis://10.0.0.1", "10.0.0.1:6379", None),
            ("redis://[::1]:1", "[::1]:1", None),
            ("redis://u:p@cache:7000/15", "cache:7000", Some(15)),
            ("redis+unix:///run/redis/r.sock", "/run/redis/r.sock", None),
            ("redis+unix://u:p@x/run/a%20b", "/run/a b", None),
        ] {
            let address = Address::of(url).unwrap();
            assert_eq!(address.endpoint, endpoint, "{url}");
            assert_eq!(address.config.database, database, "{url}");
            assert!(address.config.tls.is_none(), "{url}");
        }
        let six = Address::of("redis://[::1]:1").unwrap().config.server;
        assert_eq!(six, ServerConfig::new_centralized("::1", 1));
    }

    #[test]
    fn user_and_password_are_resolved() {
        for (url, user, password) in [
            ("redis://cache", None, None),
            ("redis://:s3cret@cache", None, Some("s3cret")),
            ("redis://me:a%20%40%2F%25@cache", Some("me"), Some("a @/%")),
        ] {
            let config = Address::of(url).unwrap().config;
            assert_eq!(config.username.as_deref(), user, "{url}");
            assert_eq!(config.password.as_deref(), password, "{url}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_its_password() {
        for (url, word) in [
            ("cache:6379", "not known here"),
            ("", "no URL"),
            ("redis://me:s3cret@cache:port/0", "no URL"),
            ("http://me:s3cret@cache", "`http://`"),
            ("redis-cluster://cache", "`redis-cluster://`"),
            ("redis:///0", "no host"),
            ("redis://me:s3cret@cache/x", "database"),
            ("redis://cache/256", "database"),
            ("redis://cache/0/1", "database"),
            ("redis://me:s3cret@cache/0?a=b", "after a `?`"),
            ("redis://me:s3cret%zz@cache", "%25"),
            ("redis+unix://", "no socket"),
            ("redis+unix:run", "no socket"),
        ] {
            let error = Address::of(url)
                .map(|address| address.endpoint)
                .unwrap_err();
            let words = format!("{error} {error:?}");
            assert!(words.contains(word), "{url}: {words}");
            assert!(!words.contains("s3cret"), "{words}");
        }
    }
}
