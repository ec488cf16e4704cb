//! Lists, page by page.

use serde::Serialize;
use utoipa::ToSchema;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The items.
    pub(crate) items: Vec<T>,
    /// The `cursor` of the next page; null at the end.
    #[schema(required = true)]
    pub(crate) next_cursor: Option<String>,
}
