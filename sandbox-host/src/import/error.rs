//! Why an import failed.

use std::{io, path::Path};

use sandbox_core::host::HostError;

use crate::space;

/// Why an import failed, with what is the source's fault apart from what is the host's.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// What was named can't become a root file system. For the one who named it.
    #[error("{0}")]
    BadSource(String),
    /// A step on the host failed.
    #[error("{step}: {error}")]
    Io {
        step: &'static str,
        #[source]
        error: io::Error,
    },
    /// The host can't, and says why in its own terms.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Nobody waits for it any more.
    #[error("stopped")]
    Stopped,
}

impl ImportError {
    /// For `map_err`: the host's failure at this step.
    pub(super) fn at(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { step, error }
    }

    pub(super) fn bad(reason: impl Into<String>) -> Self {
        Self::BadSource(reason.into())
    }

    /// The same, naming what is at fault in front.
    pub(super) fn within(self, what: &str) -> Self {
        match self {
            Self::BadSource(reason) => Self::BadSource(format!("{what}: {reason}")),
            other => other,
        }
    }

    /// As the host tells it; `folder` is where it was working.
    pub(super) fn into_host(self, folder: &Path) -> HostError {
        match self {
            Self::BadSource(reason) => HostError::BadSource(reason),
            Self::Io { step, error } => space::or_internal(folder, step, &error),
            Self::Host(error) => error,
            Self::Stopped => HostError::Unavailable("the import was stopped".to_owned()),
        }
    }
}
