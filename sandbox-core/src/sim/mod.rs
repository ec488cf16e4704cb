//! The simulation kit: every trait of this crate in memory, honest and steerable, and the contract
//! tests that keep it so.
//!
//! Nothing here reads the real time: under tokio's paused clock a whole life of a sandbox takes
//! microseconds and happens the same way each time.

mod clock;
mod files;
mod guest;
mod host;
mod link;
mod memory;
mod memory_store;
mod process;
mod queue;
#[expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test suite: it fails by panicking"
)]
pub mod queue_contract;
mod script;
#[expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test suite: it fails by panicking"
)]
pub mod store_contract;
#[cfg(any(feature = "simulation", test))]
pub mod world;

pub use clock::SimClock;
pub use guest::SimGuest;
pub use host::{Call, SimHost, When, Window};
pub use memory_store::MemoryStore;
pub use queue::{Announced, QueueFaults, SimQueue};
