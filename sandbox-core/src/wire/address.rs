//! Where a server listens.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::error::Error;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |problem: &str| {
            Err(Error::InvalidRequest(format!(
                "the address `{text}` {problem}; write `unix:/path/to/socket` or `tcp:HOST:PORT`"
            )))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => bad("has no path"),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let Some(place) = text.strip_prefix("tcp:") else {
            return bad("has no known beginning");
        };
        // `tcp://host:port` is what many people write.
        let place = place.strip_prefix("//").unwrap_or(place);
        match place.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(place.to_owned()))
            }
            _ => bad("has no host with a port"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(place) => write!(f, "tcp:{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("unix:/run/sandboxd.sock", "unix:/run/sandboxd.sock"),
            ("unix:relative.sock", "unix:relative.sock"),
            ("tcp:localhost:7070", "tcp:localhost:7070"),
            ("tcp://[::1]:80", "tcp:[::1]:80"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn r42_a_bad_address_says_how_to_write_one() {
        for text in [
            "",
            "unix:",
            "http://host",
            "tcp:host",
            "tcp::80",
            "tcp:host:port",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("unix:/path"), "{error}");
        }
    }
}
