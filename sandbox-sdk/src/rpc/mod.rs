//! The connection between a client and a control plane: one byte stream (a unix socket, or TCP)
//! that carries frames ([`sandbox_core::wire`]) of the `protocol`.
//!
//! ```text
//!  Client ─► RemoteApi ─► Connection ─► frames ─► serve ─► Service ─► dyn Api (the engine)
//!               │  ▲ lost: dial again,                        │
//!               └──┘ send again under the same request ID     └─► Requests: each ID is done once
//! ```
//!
//! What never happens here: a call that changes something is never done twice, work never ends
//! because a connection did, and no message is larger than a frame.

mod client;
mod protocol;
#[cfg(feature = "rpc-server")]
mod server;
#[cfg(all(test, feature = "rpc-server"))]
mod tests;

pub use client::RemoteConfig;
pub use protocol::PROTOCOL_VERSION;
#[cfg(feature = "rpc-server")]
pub use sandbox_host::rpc::Listener;
#[cfg(feature = "rpc-server")]
pub use server::{Server, serve};
