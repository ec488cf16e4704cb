//! Tests that other crates and test targets run too.

#[cfg(feature = "host")]
pub mod bare;
#[cfg(feature = "host")]
pub use crate::disk::double::put_in_place_of_dm_snapshot;
pub mod guest_contract;
#[cfg(feature = "host")]
pub mod guest_program;
#[expect(
    clippy::expect_used,
    reason = "a check in tests, which fail by panicking"
)]
pub mod leftovers;
#[expect(
    clippy::expect_used,
    reason = "a check in tests, which fail by panicking"
)]
pub mod machine_files;
#[cfg(feature = "host")]
#[expect(
    clippy::expect_used,
    reason = "set-up of tests, which fail by panicking"
)]
pub mod seed;
