//! Every bound of the REST interface, in one place.

use std::time::Duration;

/// The largest JSON body, in bytes: the longest stdin that travels with a command (4 MiB) fits, as
/// base64 too.
pub(crate) const JSON_BODY_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The largest message from a client over a WebSocket, in bytes.
pub(crate) const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// What changes with the place where the daemon runs, and in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For how long a client may take to send the head of a request; also how long a connection
    /// may idle between two requests.
    pub header_timeout: Duration,
    /// For how long a request's body may stand still.
    pub body_timeout: Duration,
    /// The most that answering may take, where the answer is no stream and waits for no command.
    pub request_timeout: Duration,
    /// Connections at a time; more are refused.
    pub connections_max: usize,
    /// How long the process of a terminal waits for someone to read what it wrote, when the daemon
    /// was killed: then its oldest output goes, until someone takes the terminal up again.
    pub terminal_patience: Duration,
    /// How long a stop waits for requests in flight.
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            // Beyond the most that making a sandbox may take, a template's first boot included.
            request_timeout: Duration::from_secs(200),
            connections_max: 8192,
            terminal_patience: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(6),
        }
    }
}
