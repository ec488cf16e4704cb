//! What of the platform's answers is for clients. Words that may hold paths, addresses or SQL stay in
//! the log, under an error ID that the client is told.

use std::sync::Arc;

use sandbox_core::{
    api::Begun,
    build::{BuildLog, BuildPage, BuildRecord},
    error::{Error, Told, reason_told},
    file::{DirPage, FileChunk, FileStat, WriteHandle},
    id::{OperationId, TemplateId},
    operation::{OperationRecord, OperationStatus},
    process::{ExecOutput, Output, ProcessInfo, Started},
    reconcile::Preview,
    sandbox::{Page, SandboxRecord},
    template::{TemplatePage, TemplateRecord, TemplateUse},
};
use uuid::Uuid;

use crate::rpc::protocol::ToldBuild;

/// An answer, as far as it is for clients.
pub(super) trait Tell {
    /// Takes out what is not.
    #[must_use]
    fn told(self) -> Self;
}

impl<T: Tell> Tell for Result<T, Error> {
    fn told(self) -> Self {
        self.map(T::told).map_err(|error| match error.told() {
            Told::Plainly(told) => told,
            Told::Vaguely(words) => {
                let error_id = format!("err-{}", Uuid::now_v7());
                tracing::error!(%error_id, detail = %error, "a request failed");
                match error {
                    // It says so by itself.
                    Error::Internal(_) => Error::Internal(error_id),
                    error => error.in_words(format!("{words} ({error_id})")),
                }
            }
        })
    }
}

impl Tell for SandboxRecord {
    fn told(mut self) -> Self {
        let told = reason_told(self.state, &self.reason);
        if told != self.reason {
            self.reason = told.to_owned();
        }
        self
    }
}

impl Tell for Begun {
    fn told(self) -> Self {
        Self {
            record: self.record.told(),
            ..self
        }
    }
}

impl Tell for Page<SandboxRecord> {
    fn told(self) -> Self {
        Self {
            items: self.items.into_iter().map(Tell::told).collect(),
            ..self
        }
    }
}

impl Tell for OperationRecord {
    /// What it failed of was logged when it did, under its own ID.
    fn told(mut self) -> Self {
        if let OperationStatus::Failed { error } = self.status {
            let error = match error.told() {
                Told::Plainly(told) => told,
                Told::Vaguely(words) => error.in_words(words.to_owned()),
            };
            self.status = OperationStatus::Failed { error };
        }
        self
    }
}

/// All of it is for clients.
macro_rules! tell_all {
    ($($answer:ty),* $(,)?) => {
        $(impl Tell for $answer {
            fn told(self) -> Self {
                self
            }
        })*
    };
}

tell_all!(
    (),
    u64,
    (Vec<TemplateUse>, Option<TemplateId>),
    Arc<ExecOutput>,
    BuildLog,
    BuildPage,
    BuildRecord,
    DirPage,
    FileChunk,
    FileStat,
    OperationId,
    Option<String>,
    Output,
    Preview,
    Started,
    TemplatePage,
    TemplateRecord,
    ToldBuild,
    Vec<ProcessInfo>,
    WriteHandle,
);
