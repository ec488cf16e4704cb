//! The first words on a connection.

use serde::{Deserialize, Serialize};
use tarpc::client::RpcError;
use uuid::Uuid;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether a side of our version of a protocol can speak with one of theirs: those that differ by
/// one understand each other.
#[must_use]
pub const fn understands(ours: u32, theirs: u32) -> bool {
    theirs > 0 && ours.abs_diff(theirs) <= 1
}

/// A client introduces itself. Its first message, and the only one that a stranger may send.
#[derive(Clone, Serialize, Deserialize)]
pub struct ClientHello {
    /// Its version of the protocol.
    pub protocol_version: u32,
    /// Its release, for logs and messages.
    #[serde(default)]
    pub version: String,
    /// The secret that the server wants to be shown.
    #[serde(default)]
    pub key: Option<String>,
}

impl ClientHello {
    /// The words of a client of this release.
    #[must_use]
    pub fn new(protocol_version: u32, key: Option<&str>) -> Self {
        Self {
            protocol_version,
            version: VERSION.to_owned(),
            key: key.map(str::to_owned),
        }
    }
}

impl std::fmt::Debug for ClientHello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        f.debug_struct("ClientHello")
            .field("protocol_version", &self.protocol_version)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A server introduces itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerHello {
    /// Its version of the protocol.
    pub protocol_version: u32,
    /// Its release.
    #[serde(default)]
    pub version: String,
    /// Differs after each start.
    pub instance: Uuid,
    /// What it can do beyond this version of the protocol.
    #[serde(default)]
    pub capabilities: Vec<String>,
}

impl ServerHello {
    /// The words of a server of this release.
    #[must_use]
    pub fn new(protocol_version: u32, instance: Uuid) -> Self {
        Self {
            protocol_version,
            version: VERSION.to_owned(),
            instance,
            capabilities: Vec::new(),
        }
    }
}

/// Why a client is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The versions lie too far apart.
    Protocol {
        /// The server's version of the protocol.
        server_protocol_version: u32,
        /// The server's release.
        server_version: String,
    },
    /// There is no key, or it is not one that is known.
    Unauthorized,
}

impl Refusal {
    /// The words of a server of this release to a client of another protocol.
    #[must_use]
    pub fn protocol(ours: u32) -> Self {
        Self::Protocol {
            server_protocol_version: ours,
            server_version: VERSION.to_owned(),
        }
    }
}

/// Why a server is not one to go on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWelcome {
    /// The versions lie too far apart.
    #[error(
        "is of version {version} (protocol {theirs}), this side of version {VERSION} (protocol \
         {ours}); use releases that lie closer together"
    )]
    TooFar {
        /// Our version of the protocol.
        ours: u32,
        /// The server's.
        theirs: u32,
        /// The server's release.
        version: String,
    },
    /// It does not accept the key.
    #[error("does not accept this key")]
    Unauthorized,
    /// It gave no sensible answer.
    #[error("does not answer as expected: {0}")]
    NoAnswer(String),
}

/// What an answer to `hello` means to a client of our version of the protocol.
///
/// # Errors
/// See [`NoWelcome`].
pub fn judge(
    ours: u32,
    answer: Result<Result<ServerHello, Refusal>, RpcError>,
) -> Result<ServerHello, NoWelcome> {
    let too_far = |theirs, version| NoWelcome::TooFar {
        ours,
        theirs,
        version,
    };
    match answer {
        Ok(Ok(hello)) if understands(ours, hello.protocol_version) => Ok(hello),
        Ok(Ok(hello)) => Err(too_far(hello.protocol_version, hello.version)),
        Ok(Err(Refusal::Protocol {
            server_protocol_version,
            server_version,
        })) => Err(too_far(server_protocol_version, server_version)),
        Ok(Err(Refusal::Unauthorized)) => Err(NoWelcome::Unauthorized),
        Err(error) => Err(NoWelcome::NoAnswer(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(theirs: u32) -> Result<ServerHello, NoWelcome> {
        let mut hello = ServerHello::new(theirs, Uuid::nil());
        hello.version = "9.8.7".to_owned();
        judge(5, Ok(Ok(hello)))
    }

    #[test]
    fn neighbouring_versions_go_together_and_others_are_told_what_to_do() {
        for near in 4..=6 {
            assert!(answer(near).is_ok());
        }
        for far in [0, 3, 7, u32::MAX] {
            let words = answer(far).unwrap_err().to_string();
            assert!(
                words.contains("9.8.7") && words.contains("releases"),
                "{words}"
            );
        }
        assert!(!understands(1, 0), "no side has version 0");
    }

    #[test]
    fn a_key_is_not_shown_in_logs() {
        let shown = format!("{:?}", ClientHello::new(1, Some("hush")));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
