//! Who changed what, and why. Every write of a record carries one [`AuditEntry`] into the same
//! transaction.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, id::AuditId};

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// What kind of actor this is.
    pub kind: ActorKind,
    /// The actor's written ID, or the part of the system that acts.
    pub id: String,
}

/// The kinds of actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The program that embeds the platform.
    App,
    /// Whoever shows an API key.
    ApiKey,
    /// A part of the platform itself.
    System,
}

impl Actor {
    /// The program that embeds the platform.
    #[must_use]
    pub fn app() -> Self {
        Self {
            kind: ActorKind::App,
            id: "embedded".to_owned(),
        }
    }

    /// Whoever shows an API key, by the key's name: never by the key.
    #[must_use]
    pub fn api_key(name: impl Into<String>) -> Self {
        Self {
            kind: ActorKind::ApiKey,
            id: name.into(),
        }
    }

    /// A part of the platform, such as `reconciler`.
    #[must_use]
    pub fn system(part: &str) -> Self {
        Self {
            kind: ActorKind::System,
            id: part.to_owned(),
        }
    }
}

impl ActorKind {
    /// All kinds, for tables and tests.
    pub const ALL: [Self; 3] = [Self::App, Self::ApiKey, Self::System];

    /// The kind's name, as stores keep it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::ApiKey => "api_key",
            Self::System => "system",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.id)
    }
}

/// One change of state, as the audit log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its own ID.
    pub id: AuditId,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// The written ID of what was changed.
    pub resource: String,
    /// What was done, such as `sandbox.create`.
    pub action: String,
    /// How the resource stands after it, such as `running`, or `removed`.
    pub outcome: String,
    /// Why.
    pub reason: String,
}
