//! Running a command to its end at the other side, and fetching what it wrote.
//!
//! ```text
//!  exec ──► running ──exec_result──► running ... ──► ended ──exec_result──► next piece ... ──► whole
//! ```
//!
//! The command belongs to the control plane: it runs on whatever becomes of this connection, and a
//! lost one is made again in the middle without starting it twice.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sandbox_core::{
    error::Error,
    id::SandboxId,
    process::{ExecOutput, ProcessSpec},
};
use uuid::Uuid;

use super::{Again, Remote, api::CALL_LIMIT};
use crate::rpc::protocol::ExecProgress;

impl Remote {
    pub(super) async fn exec_to_its_end(
        &self,
        id: SandboxId,
        spec: ProcessSpec,
    ) -> Result<ExecOutput, Error> {
        let request = Uuid::now_v7();
        let mut progress = self
            .call(Again::SameInstance, CALL_LIMIT, |client, context| {
                let spec = spec.clone();
                async move { client.exec(context, request, id, spec).await }
            })
            .await?;
        let mut gathered = Gathered::default();
        loop {
            if let Some(output) = gathered.take(progress)? {
                if gathered.pieces > 1 {
                    self.forget(request).await;
                }
                return Ok(output);
            }
            let offset = gathered.bytes.len() as u64;
            progress = self
                .call(Again::Always, CALL_LIMIT, |client, context| async move {
                    client.exec_result(context, request, offset).await
                })
                .await?;
        }
    }

    /// Says that all of a command's output is here.
    async fn forget(&self, request: Uuid) {
        let told = self
            .call(Again::Always, CALL_LIMIT, |client, context| async move {
                client.exec_forget(context, request).await.map(Ok)
            })
            .await;
        // It is forgotten after a while in any case.
        told.ok();
    }
}

/// What has come of a command's output: stdout with stderr behind it.
#[derive(Default)]
struct Gathered {
    bytes: BytesMut,
    pieces: usize,
}

impl Gathered {
    /// Takes an answer, and gives the whole once it is there.
    fn take(&mut self, progress: ExecProgress) -> Result<Option<ExecOutput>, Error> {
        let ExecProgress::Ended {
            status,
            timed_out,
            duration_us,
            dropped_bytes,
            stdout_bytes,
            stderr_bytes,
            piece,
        } = progress
        else {
            return Ok(None);
        };
        self.pieces += 1;
        let whole =
            usize::try_from(stdout_bytes.saturating_add(stderr_bytes)).unwrap_or(usize::MAX);
        let mut all: Bytes = if self.bytes.is_empty() && piece.len() == whole {
            piece
        } else if piece.is_empty() || self.bytes.len() + piece.len() > whole {
            return Err(Error::Internal(
                "the pieces of a command's output do not fit together".to_owned(),
            ));
        } else {
            self.bytes.extend_from_slice(&piece);
            if self.bytes.len() < whole {
                return Ok(None);
            }
            self.bytes.split().freeze()
        };
        let stdout = all.split_to(
            usize::try_from(stdout_bytes)
                .unwrap_or(usize::MAX)
                .min(whole),
        );
        Ok(Some(ExecOutput {
            status,
            timed_out,
            stdout,
            stderr: all,
            dropped_bytes,
            duration: Duration::from_micros(duration_us),
        }))
    }
}
