//! The link between host and guest agent: one byte stream (a virtio-serial port of the VM, a unix
//! socket on the host) that carries, in this order, a [`preamble`] which makes both directions
//! clean, then frames ([`codec`]) of the [`protocol`].
//!
//! What never happens here: a call is never sent twice, and nothing of one connection is taken for
//! a part of the next.

#[cfg(feature = "link-client")]
pub mod client;
pub mod codec;
pub mod preamble;
pub mod protocol;
