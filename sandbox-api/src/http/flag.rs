//! Yes or no in a query string.

use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

/// `true` or `1`, `false` or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ToSchema)]
pub(crate) enum Flag {
    /// Yes.
    #[schema(rename = "true")]
    True,
    /// Yes.
    #[schema(rename = "1")]
    One,
    /// No.
    #[default]
    #[schema(rename = "false")]
    False,
    /// No.
    #[schema(rename = "0")]
    Zero,
}

impl Flag {
    pub(crate) const fn is_set(self) -> bool {
        matches!(self, Self::True | Self::One)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "true" => Ok(Self::True),
            "1" => Ok(Self::One),
            "false" => Ok(Self::False),
            "0" => Ok(Self::Zero),
            _ => Err(de::Error::custom("expected `true` or `false`")),
        }
    }
}
