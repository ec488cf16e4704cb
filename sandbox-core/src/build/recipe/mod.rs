//! Recipes.

mod key;
#[cfg(feature = "engine")]
mod layers;
mod quote;
mod scope;
mod step;

pub use key::{BadHash, ContentDigest, LayerKey};
#[cfg(feature = "engine")]
pub use layers::{MissingDigest, layers};
pub(in crate::build) use scope::join;
pub use scope::{Scope, scope_before};
pub use step::{Recipe, Step};

/// What separates words.
pub(super) const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}
