//! The guest agent as a file, built by `build.rs` and carried inside this library.

/// The guest agent: a static executable for VMs of this machine's architecture, `/init` of their
/// initramfs.
#[must_use]
pub fn agent_binary() -> &'static [u8] {
    include_bytes!(env!("SANDBOX_GUEST_AGENT"))
}
