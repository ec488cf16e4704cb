//! Names of templates.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The template of a sandbox that asks for none.
pub const DEFAULT_TEMPLATE: &str = "minimal";

/// A template's name: 1 to 63 of `a-z`, `0-9`, `-`, `_`, `.`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateName(String);

/// A text that can't name a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a template's name is 1 to 63 characters of `a-z`, `0-9`, `-`, `_` and `.`, \
     and begins with a letter or digit"
)]
pub struct BadTemplateName;

impl TemplateName {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 63;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TemplateName {
    fn default() -> Self {
        Self(DEFAULT_TEMPLATE.to_owned())
    }
}

impl FromStr for TemplateName {
    type Err = BadTemplateName;

    fn from_str(text: &str) -> Result<Self, BadTemplateName> {
        let starts_well = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let plain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if starts_well && text.len() <= Self::LEN_MAX && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadTemplateName)
        }
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TemplateName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TemplateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_no_paths() {
        for good in ["minimal", "python-3.12", "a", "0_x"] {
            assert!(good.parse::<TemplateName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-x",
            "A",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<TemplateName>().is_err(), "{bad:?}");
        }
    }
}
