//! What is told of operations while they are at work and when they end: spans, log lines, and a
//! word to whoever counts.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing::Span;

use crate::{
    clock::Timestamp,
    engine::Engine,
    operation::{Operation, OperationKind, OperationStatus},
    sandbox::SandboxRecord,
};

/// An operation that has ended here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedOperation {
    /// What it did.
    pub kind: OperationKind,
    /// Whether it did that.
    pub succeeded: bool,
    /// From its beginning to its end, whoever began it.
    pub took: Duration,
}

type Listener = Arc<dyn Fn(&EndedOperation) + Send + Sync>;

/// Who is told. At most one, for as long as the engine lives.
#[derive(Default)]
pub(super) struct Observer(OnceLock<Listener>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer")
            .field(&self.0.get().is_some())
            .finish()
    }
}

impl Engine {
    /// Has `listener` called for each operation of this engine that ends from now on. It is called
    /// on the operation's own task: it counts, and does nothing that takes time. The first listener
    /// stays; later ones are not called.
    pub fn on_operation_end(&self, listener: impl Fn(&EndedOperation) + Send + Sync + 'static) {
        // A second one has lost, as documented.
        let _ = self.inner.observer.0.set(Arc::new(listener));
    }
}

/// The span of the work on a record's operation. It is a child of the request's that began it, so
/// that each line of the work names both.
pub(super) fn operation_span(record: &SandboxRecord) -> Span {
    let Some(operation) = &record.operation else {
        return Span::none();
    };
    tracing::info_span!(
        "operation",
        operation_id = %operation.id,
        kind = operation.kind.as_str(),
        sandbox = %record.id,
    )
}

impl Observer {
    /// Tells of an operation's end. Called within its span.
    pub(super) fn ended(&self, operation: &Operation, status: &OperationStatus, now: Timestamp) {
        let took = (now - operation.started_at).to_std().unwrap_or_default();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let succeeded = match status {
            OperationStatus::Running => return,
            OperationStatus::Succeeded => {
                tracing::info!(took_ms, "the operation is done");
                true
            }
            OperationStatus::Failed { error } => {
                tracing::warn!(took_ms, %error, "the operation failed");
                false
            }
        };
        if let Some(listener) = self.0.get() {
            listener(&EndedOperation {
                kind: operation.kind,
                succeeded,
                took,
            });
        }
    }
}
