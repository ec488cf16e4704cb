//! Bodies that are bytes, for the document alone.

use utoipa::ToSchema;

/// Bytes as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes bodies that are never held as a whole")]
pub(crate) struct Raw(Vec<u8>);
