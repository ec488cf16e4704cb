//! The body of a request as a file.
//!
//! ```text
//!  handler: body ──pieces──► task: open ──► write, write, ... ──► commit
//!     │ client gone, body broken            │ no end came
//!     ▼                                     ▼
//!  the channel closes without an end      abort: nothing of it is left
//! ```
//!
//! The guest's side is a task of its own, so that a write is given up properly also when the
//! handler is dropped in the middle.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt, stream};
use sandbox_core::{
    api::Api,
    error::Error,
    file::{FileStat, WriteHandle, WriteSpec},
    id::SandboxId,
    process::CHUNK_MAX_BYTES,
};
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::error::{ApiError, Code};

/// Pieces of one file that are on their way at a time.
const IN_FLIGHT: usize = 4;
const PIECE_BYTES: usize = CHUNK_MAX_BYTES as usize;

enum Piece {
    Data(Bytes),
    End,
}

/// Why a write did not come to its end.
enum Failed {
    /// The client did not send all of it.
    NoEnd,
    /// The sandbox refused.
    Refused(Error),
}

/// Writes a body to a file.
pub(crate) async fn run(
    api: Arc<dyn Api>,
    id: SandboxId,
    spec: WriteSpec,
    body: Body,
) -> Result<FileStat, ApiError> {
    let (sender, receiver) = mpsc::channel(1);
    let writing = tokio::spawn(write(api, id, spec, receiver).in_current_span());
    let fed = feed(body, sender).await;
    let written = writing
        .await
        .map_err(|error| ApiError::logged(Code::Internal, "internal error", &error))?;
    match (fed, written) {
        (_, Ok(stat)) => Ok(stat),
        (_, Err(Failed::Refused(error))) => Err(error.into()),
        (Err(error), Err(Failed::NoEnd)) => Err(error),
        (Ok(()), Err(Failed::NoEnd)) => Err(broken()),
    }
}

fn broken() -> ApiError {
    ApiError::invalid("the body did not arrive whole; nothing was written")
}

/// Cuts the body into pieces. Ends early where nobody takes them.
async fn feed(body: Body, sender: mpsc::Sender<Piece>) -> Result<(), ApiError> {
    let mut frames = body.into_data_stream();
    let mut gathered = BytesMut::new();
    while let Some(frame) = frames.next().await {
        gathered.extend_from_slice(&frame.map_err(|_| broken())?);
        while gathered.len() >= PIECE_BYTES {
            let piece = gathered.split_to(PIECE_BYTES).freeze();
            if sender.send(Piece::Data(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
    if !gathered.is_empty() && sender.send(Piece::Data(gathered.freeze())).await.is_err() {
        return Ok(());
    }
    // Whoever no longer listens has something to say itself.
    let _ = sender.send(Piece::End).await;
    Ok(())
}

async fn write(
    api: Arc<dyn Api>,
    id: SandboxId,
    spec: WriteSpec,
    pieces: mpsc::Receiver<Piece>,
) -> Result<FileStat, Failed> {
    let handle = api.open_write(id, spec).await.map_err(Failed::Refused)?;
    match send(&*api, id, handle, pieces).await {
        Ok(size) => api
            .commit_write(id, handle, size)
            .await
            .map_err(Failed::Refused),
        Err(failed) => {
            // The first error is the one to tell; the guest drops lost writes by itself too.
            let _ = api.abort_write(id, handle).await;
            Err(failed)
        }
    }
}

/// Sends what comes and returns how much that was. Pieces of zeros become holes.
async fn send(
    api: &dyn Api,
    id: SandboxId,
    handle: WriteHandle,
    pieces: mpsc::Receiver<Piece>,
) -> Result<u64, Failed> {
    let pieces = stream::try_unfold((pieces, 0_u64), |(mut pieces, offset)| async move {
        match pieces.recv().await {
            None => Err(Failed::NoEnd),
            Some(Piece::End) => Ok(None),
            Some(Piece::Data(data)) => {
                let end = offset + data.len() as u64;
                Ok(Some(((offset, data), (pieces, end))))
            }
        }
    });
    pieces
        .map_ok(|(offset, data)| async move {
            let end = offset + data.len() as u64;
            if data.iter().any(|byte| *byte != 0) {
                let written = api.write_chunk(id, handle, offset, data).await;
                written.map_err(Failed::Refused)?;
            }
            Ok(end)
        })
        .try_buffer_unordered(IN_FLIGHT)
        .try_fold(0, |longest: u64, end| async move { Ok(longest.max(end)) })
        .await
}
