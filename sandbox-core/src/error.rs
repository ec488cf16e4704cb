//! The one error of the public interface.

use serde::{Deserialize, Serialize};

use crate::{
    build::BuildStatus,
    guest::GuestError,
    id::{BuildId, OperationId, SandboxId},
    sandbox::SandboxState,
};

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Error {
    /// The request makes no sense as given; nothing was changed.
    #[error("{0}")]
    InvalidRequest(String),
    /// There is no such sandbox.
    #[error("there is no sandbox {0}")]
    SandboxNotFound(SandboxId),
    /// There is no such operation; it ended long ago, or never was.
    #[error("there is no operation {0}")]
    OperationNotFound(OperationId),
    /// There is no such template.
    #[error("there is no template `{0}`")]
    TemplateNotFound(String),
    /// There is no such template build.
    #[error("there is no build {0}")]
    BuildNotFound(BuildId),
    /// The template build has ended already.
    #[error("the build {id} has ended: {}", status.as_str())]
    BuildEnded {
        /// Which build.
        id: BuildId,
        /// How it ended.
        status: BuildStatus,
    },
    /// A template of this name is there already.
    #[error("there is a template `{0}` already")]
    TemplateExists(String),
    /// Whoever asked may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The sandbox is in a state in which this can't be done.
    #[error("sandbox {id} is {}: {reason}", state.as_str())]
    InvalidState {
        /// Which sandbox.
        id: SandboxId,
        /// How it stands.
        state: SandboxState,
        /// Why, for people.
        reason: String,
    },
    /// Something else changed the sandbox at the same time; ask again.
    #[error("sandbox {0} is being changed by another request; try again")]
    Conflict(SandboxId),
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for a different request")]
    IdempotencyMismatch,
    /// Whoever asked did not show who it is, or with a key that is not known here.
    #[error("{0}")]
    Unauthorized(String),
    /// The other side can't do this, such as one of another version.
    #[error("{0}")]
    Unsupported(String),
    /// The guest refused.
    #[error(transparent)]
    Guest(GuestError),
    /// The connection into the sandbox was cut, or it did not answer in time.
    #[error("{0}")]
    GuestUnavailable(String),
    /// The host has no room for it.
    #[error("{0}")]
    Capacity(String),
    /// The machine lacks something that must be installed; the message has the command.
    #[error("{0}")]
    NotSetUp(String),
    /// The host could not do it.
    #[error("{0}")]
    Host(String),
    /// The host or the store does not answer for now; ask again later.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of the platform itself.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a sandbox is in state `error`, as far as clients are told: the record's own words quote the
/// host.
const NOT_MADE: &str = "it could not be made, and what is left of it could not be removed yet";

/// What clients are told of an error. See [`Error::told`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Its own words, or as much of them as is for clients.
    Plainly(Error),
    /// These words: its own may hold paths, addresses or SQL, and are for the log.
    Vaguely(&'static str),
}

impl Error {
    /// Decides what clients are told of this error.
    #[must_use]
    pub fn told(&self) -> Told {
        match self {
            Self::Capacity(_) => Told::Vaguely("the host has no room for it now"),
            Self::NotSetUp(_) => {
                Told::Vaguely("the host lacks something that must be installed; its log says what")
            }
            Self::Host(_) => Told::Vaguely("the host could not do it"),
            Self::Unavailable(_) => Told::Vaguely("unavailable for now; try again"),
            Self::Internal(_) => Told::Vaguely("internal error"),
            Self::InvalidState { id, state, reason } => Told::Plainly(Self::InvalidState {
                id: *id,
                state: *state,
                reason: reason_told(*state, reason).to_owned(),
            }),
            Self::InvalidRequest(_)
            | Self::SandboxNotFound(_)
            | Self::OperationNotFound(_)
            | Self::TemplateNotFound(_)
            | Self::TemplateExists(_)
            | Self::BuildNotFound(_)
            | Self::BuildEnded { .. }
            | Self::Forbidden(_)
            | Self::Conflict(_)
            | Self::IdempotencyMismatch
            | Self::Unauthorized(_)
            | Self::Unsupported(_)
            | Self::Guest(_)
            | Self::GuestUnavailable(_) => Told::Plainly(self.clone()),
        }
    }

    /// The same error in other words, where it has words of its own.
    #[must_use]
    pub fn in_words(self, words: String) -> Self {
        match self {
            Self::Capacity(_) => Self::Capacity(words),
            Self::NotSetUp(_) => Self::NotSetUp(words),
            Self::Host(_) => Self::Host(words),
            Self::Unavailable(_) => Self::Unavailable(words),
            Self::Internal(_) => Self::Internal(words),
            other => other,
        }
    }
}

/// What clients are told of why a sandbox stands where it does.
#[must_use]
pub const fn reason_told(state: SandboxState, reason: &str) -> &str {
    match state {
        SandboxState::Error => NOT_MADE,
        _ => reason,
    }
}
