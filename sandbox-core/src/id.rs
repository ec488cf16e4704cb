//! Typed identifiers.
//!
//! Every entity has a UUID of its own (version 7 for new ones, so that they sort by age). Between
//! machines and people it is written as a prefix and the hyphenated UUID, `sb-0190…`; stores keep
//! the bare UUID. Parsing takes exactly the written form and says what is wrong with anything else.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Why a text is not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The prefix is missing or another kind's.
    #[error("expected an ID that starts with `{expected}-`, got `{got}`")]
    WrongPrefix {
        /// The prefix that this kind of identifier has, without its hyphen.
        expected: &'static str,
        /// The start of what was given.
        got: String,
    },
    /// What follows the prefix is not a lower-case hyphenated UUID.
    #[error(
        "`{got}` is not an ID: after `{expected}-` comes a lower-case UUID with hyphens, \
         such as `{expected}-0190163d-8694-739b-aea5-966c26f8ad91`"
    )]
    BadUuid {
        /// The prefix of this kind.
        expected: &'static str,
        /// The start of what was given.
        got: String,
    },
}

/// As much of a rejected input as belongs in an error message.
fn excerpt(text: &str) -> String {
    const SHOWN: usize = 48;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn parse(prefix: &'static str, text: &str) -> Result<Uuid, ParseIdError> {
    let rest = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .ok_or_else(|| ParseIdError::WrongPrefix {
            expected: prefix,
            got: excerpt(text),
        })?;
    let bad = || ParseIdError::BadUuid {
        expected: prefix,
        got: excerpt(text),
    };
    let uuid = Uuid::try_parse(rest).map_err(|_| bad())?;
    // `Uuid` also reads upper case, braces and the form without hyphens: only one spelling is ours.
    let mut buffer = Uuid::encode_buffer();
    if uuid.hyphenated().encode_lower(&mut buffer) != rest {
        return Err(bad());
    }
    Ok(uuid)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What stands before the hyphen in the written form.
            pub const PREFIX: &'static str = $prefix;

            /// A new identifier. The caller supplies the UUID: this crate has no randomness.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The bare UUID, as stores keep it.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "-{}"), self.0.hyphenated())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse($prefix, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*

        #[cfg(test)]
        mod kinds {
            use super::*;
            use proptest::prelude::*;

            $(
            #[expect(non_snake_case, reason = "a module per type, named after it")]
            mod $name {
                use super::*;

                proptest! {
                    #[test]
                    fn r1_format_then_parse_is_identity(bits: u128) {
                        let id = crate::id::$name::from_uuid(Uuid::from_u128(bits));
                        prop_assert_eq!(id.to_string().parse::<crate::id::$name>(), Ok(id));
                        let json = serde_json::to_string(&id).unwrap();
                        prop_assert_eq!(serde_json::from_str::<crate::id::$name>(&json).unwrap(), id);
                    }

                    #[test]
                    fn r1_what_parses_formats_back(text in concat!("(", $prefix, "-)?[0-9a-fA-F-]{30,40}")) {
                        if let Ok(id) = text.parse::<crate::id::$name>() {
                            prop_assert_eq!(id.to_string(), text);
                        }
                    }
                }
            }
            )*
        }
    };
}

ids! {
    /// A sandbox.
    SandboxId = "sb";
    /// A template.
    TemplateId = "tpl";
    /// A template build.
    BuildId = "bld";
    /// A user.
    UserId = "usr";
    /// A team.
    TeamId = "team";
    /// An API key.
    KeyId = "key";
    /// A host.
    HostId = "host";
    /// A host's one-time registration token.
    HostTokenId = "htok";
    /// A host's refresh token.
    HostRefreshTokenId = "hrt";
    /// A durable operation.
    OperationId = "op";
    /// An audit entry.
    AuditId = "log";
}

/// The team whose templates are shared with everyone.
pub const PLATFORM_TEAM_ID: TeamId = TeamId::from_uuid(Uuid::nil());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r1_written_form_is_prefix_and_hyphenated_uuid() {
        let id = SandboxId::from_uuid(Uuid::from_u128(0x0190163d_8694_739b_aea5_966c26f8ad91));
        assert_eq!(id.to_string(), "sb-0190163d-8694-739b-aea5-966c26f8ad91");
    }

    #[test]
    fn r1_parsing_says_what_is_wrong() {
        let good = "sb-0190163d-8694-739b-aea5-966c26f8ad91";
        assert!(good.parse::<SandboxId>().is_ok());
        for (text, part) in [
            ("", "starts with `sb-`"),
            (
                "tpl-0190163d-8694-739b-aea5-966c26f8ad91",
                "starts with `sb-`",
            ),
            (
                "sb0190163d-8694-739b-aea5-966c26f8ad91",
                "starts with `sb-`",
            ),
            ("sb-0190163D-8694-739b-aea5-966c26f8ad91", "lower-case"),
            ("sb-0190163d8694739baea5966c26f8ad91", "with hyphens"),
            (
                "sb-{0190163d-8694-739b-aea5-966c26f8ad91}",
                "lower-case UUID",
            ),
            (
                "sb-0190163d-8694-739b-aea5-966c26f8ad91 ",
                "lower-case UUID",
            ),
            ("sb-", "lower-case UUID"),
        ] {
            let message = text.parse::<SandboxId>().unwrap_err().to_string();
            assert!(message.contains(part), "{text:?} gave {message:?}");
        }
    }

    #[test]
    fn a_long_bad_id_is_not_echoed_whole() {
        let long = "x".repeat(10_000);
        assert!(long.parse::<SandboxId>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn r3_platform_team_is_all_zero() {
        assert_eq!(
            PLATFORM_TEAM_ID.to_string(),
            "team-00000000-0000-0000-0000-000000000000"
        );
    }
}
