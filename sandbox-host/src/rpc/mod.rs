//! The connection between a control plane and a host: one byte stream (a unix socket, or TCP on the
//! loopback) that carries frames ([`sandbox_core::wire`]) of the `protocol`.
//!
//! ```text
//!  engine ─► RemoteHost ─► Line ─► frames ─► HostServer ─► Service ─► dyn Host (the manager)
//!               │  ▲ lost: dialled again,                     │
//!               └──┘ orders and reads are asked again         └─► orders run on tasks of their own
//! ```
//!
//! What never happens here: a call to a guest that changes something is never sent twice, an order
//! never ends because its connection did, and no message is larger than a frame. Secrets travel as
//! they are, so no connection leaves the machine.

#[cfg(any(feature = "rpc-client", feature = "rpc-listener"))]
mod cause;
#[cfg(feature = "rpc-client")]
mod client;
#[cfg(any(feature = "rpc-client", feature = "rpc-server"))]
mod protocol;
#[cfg(feature = "rpc-listener")]
mod serve;
#[cfg(feature = "rpc-server")]
mod server;
#[cfg(all(test, feature = "rpc-client", feature = "rpc-server"))]
mod tests;

#[cfg(any(feature = "rpc-client", feature = "rpc-listener"))]
pub use cause::Cause;
#[cfg(feature = "rpc-client")]
pub use client::{CauseLayer, RemoteHost, RemoteHostConfig};
#[cfg(any(feature = "rpc-client", feature = "rpc-server"))]
pub use protocol::PROTOCOL_VERSION;
#[cfg(feature = "rpc-listener")]
pub use serve::{Answer, Bounds, Listener, Session, serve};
#[cfg(feature = "rpc-server")]
pub use server::{HostServer, NotLocal};
