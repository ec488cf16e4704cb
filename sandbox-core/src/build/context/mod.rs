//! Build contexts.

mod put;

pub use put::{Destination, Put};
