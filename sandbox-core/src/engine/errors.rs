//! From the errors of the parts to the one error of the public interface.

use crate::{error::Error, host::HostError, store::StoreError};

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` takes"
)]
pub(super) fn from_store(error: StoreError) -> Error {
    match error {
        StoreError::Full(_) | StoreError::Unavailable(_) => Error::Unavailable(error.to_string()),
        StoreError::Conflict | StoreError::Duplicate | StoreError::Internal(_) => {
            Error::Internal(error.to_string())
        }
    }
}

pub(super) fn from_host(error: HostError) -> Error {
    match error {
        HostError::UnknownTemplate { name } => Error::TemplateNotFound(name),
        HostError::UnknownImage(id) => Error::TemplateNotFound(id.to_string()),
        HostError::BadSource(_) => Error::InvalidRequest(error.to_string()),
        HostError::Unsupported(_) => Error::Unsupported(error.to_string()),
        HostError::DiskTooSmall { .. } => Error::InvalidRequest(format!("`disk_size_mb`: {error}")),
        HostError::Capacity(_) | HostError::DiskFull { .. } => Error::Capacity(error.to_string()),
        HostError::NotSetUp { .. } => Error::NotSetUp(error.to_string()),
        HostError::Unavailable(_) => Error::Unavailable(error.to_string()),
        HostError::UnknownSandbox(_)
        | HostError::ImageExists(_)
        | HostError::WrongState { .. }
        | HostError::Incompatible(_)
        | HostError::StaleOrder { .. }
        | HostError::StaleGeneration { .. }
        | HostError::Boot(_)
        | HostError::Internal(_) => Error::Host(error.to_string()),
    }
}

/// Whether the same order may go better when it is given again soon.
pub(super) const fn worth_repeating(error: &HostError) -> bool {
    matches!(error, HostError::Unavailable(_))
}
