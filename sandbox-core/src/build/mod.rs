//! Template builds: what is built, and what is known of it. Pure data and rules; the engine runs
//! them.

#[cfg(feature = "engine")]
pub mod context;
mod guest_path;
pub mod recipe;

pub use recipe::{ContentDigest, LayerKey, Recipe, Scope, Step};
