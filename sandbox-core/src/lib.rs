//! Types, rules and engine of the sandbox platform.
//!
//! What is decided here is decided by pure functions over plain data: the transition table
//! (`lifecycle`), sizes (`size`), what to do about a host's report (`reconcile`). What acts is the
//! `engine`, against the traits [`store::Store`], [`host::Host`], [`guest::Guest`],
//! [`queue::Queue`] and [`clock::Clock`]. Nothing here opens a file or a socket, asks for the time,
//! or spawns a task outside the engine's one seam.

pub mod api;
pub mod audit;
pub mod authorize;
pub mod build;
pub mod caller;
pub mod clock;
pub mod disk;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
pub mod file;
pub mod flatten;
pub mod guest;
pub mod host;
pub mod id;
pub mod lifecycle;
pub mod name;
pub mod operation;
#[cfg(feature = "engine")]
#[doc(hidden)]
pub mod planted;
pub mod process;
pub mod queue;
pub mod reconcile;
pub mod sandbox;
#[cfg(any(feature = "sim", test))]
pub mod sim;
pub mod size;
pub mod store;
pub mod template;
#[cfg(feature = "wire")]
pub mod wire;
