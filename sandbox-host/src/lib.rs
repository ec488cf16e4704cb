//! One machine's side of the sandbox platform.
//!
//! Built twice: with feature `host` it is the library that runs VMs; with feature `guest-agent`
//! alone it is what the agent inside a VM is made of.

#[cfg(feature = "guest-agent")]
pub mod agent;
#[cfg(feature = "agent-binary")]
mod agent_binary;
#[cfg(feature = "host")]
mod boot;
#[cfg(feature = "host")]
mod clock;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(any(feature = "host", feature = "disk-contract"))]
mod disk;
#[cfg(any(feature = "host", feature = "disk-contract"))]
mod durable;
#[cfg(feature = "host")]
mod emulator;
#[cfg(all(feature = "host", feature = "testkit"))]
pub mod fault;
#[cfg(all(feature = "host", not(feature = "testkit")))]
mod fault;
#[cfg(feature = "host")]
mod folder;
#[cfg(feature = "host")]
mod identity;
#[cfg(feature = "host")]
mod image;
#[cfg(feature = "host")]
mod import;
#[cfg(feature = "host")]
mod inventory;
pub mod link;
#[cfg(feature = "host")]
mod machine;
#[cfg(feature = "host")]
mod manager;
#[cfg(feature = "host")]
mod memory;
#[cfg(feature = "host")]
mod pool;
#[cfg(feature = "host")]
mod qemu;
#[cfg(any(feature = "rpc-listener", feature = "rpc-client"))]
pub mod rpc;
#[cfg(feature = "host")]
mod setup;
#[cfg(feature = "host")]
mod space;
#[cfg(feature = "testkit")]
pub mod testkit;

#[cfg(feature = "agent-binary")]
pub use agent_binary::agent_binary;
#[cfg(feature = "host")]
pub use clock::SystemClock;
#[cfg(feature = "disk-contract")]
pub use disk::run_as_init as disk_contract;
#[cfg(feature = "host")]
pub use manager::{FolderLock, HostConfig, HostManager};
#[cfg(feature = "host")]
pub use setup::{Check, DoctorReport, Verdict, doctor};
