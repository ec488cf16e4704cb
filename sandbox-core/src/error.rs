//! The one error of the public interface.

use serde::{Deserialize, Serialize};

use crate::{
    guest::GuestError,
    id::{OperationId, SandboxId},
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
