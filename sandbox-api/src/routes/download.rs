//! A file as the body of an answer.
//!
//! A task of its own reads ahead while the client takes what is there; it ends with the body. The
//! length is announced where the file has one (those in `/proc` have none) and kept: a file that
//! grows is cut there, and where one is replaced or cut meanwhile the connection breaks instead of
//! passing off a mixture as a file.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, header},
};
use futures::stream;
use sandbox_core::{
    api::Api,
    error::Error,
    file::{FileChunk, FileData},
    guest::GuestError,
    id::SandboxId,
    process::CHUNK_MAX_BYTES,
};
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::error::ApiError;

/// Pieces that wait for the client.
const READ_AHEAD: usize = 3;
/// How often a file that is replaced at its very start is begun anew.
const ATTEMPTS: u32 = 5;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

type Piece = Result<Bytes, io::Error>;

/// Begins to send a file. What is wrong with the request shows here.
pub(crate) async fn answer(
    api: Arc<dyn Api>,
    id: SandboxId,
    path: String,
) -> Result<Response<Body>, ApiError> {
    let mut attempt = 1;
    let first = loop {
        match api.read_file(id, &path, 0, CHUNK_MAX_BYTES).await {
            Err(Error::Guest(GuestError::Changed { .. })) if attempt < ATTEMPTS => attempt += 1,
            read => break read?,
        }
    };
    let empty = matches!(&first.data, FileData::Bytes(data) if data.is_empty());
    // Files in `/proc` say that they are empty, and aren't.
    let length = (first.size > 0 || empty).then_some(first.size);
    let (sender, receiver) = mpsc::channel::<Piece>(READ_AHEAD);
    let reading = Reading {
        api,
        id,
        path,
        length,
        sender,
    };
    let reading = async move {
        if let Err(error) = reading.run(first).await {
            tracing::debug!(%error, "a download ended early");
        }
    };
    tokio::spawn(reading.in_current_span());
    let body = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    // A browser shall save what guests wrote, and never show it.
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment"),
    );
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(response)
}

struct Reading {
    api: Arc<dyn Api>,
    id: SandboxId,
    path: String,
    length: Option<u64>,
    sender: mpsc::Sender<Piece>,
}

/// The client has gone.
struct Gone;

impl Reading {
    async fn run(&self, first: FileChunk) -> Result<(), Error> {
        let version = first.version;
        let mut chunk = first;
        let mut offset = 0;
        loop {
            let left = self.length.map_or(u64::MAX, |length| length - offset);
            let sent = match chunk.data {
                FileData::Bytes(data) => {
                    let fits =
                        usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
                    let sent = if fits > 0 {
                        self.send(data.slice(..fits)).await
                    } else {
                        Ok(())
                    };
                    sent.map(|()| fits as u64)
                }
                FileData::Hole(hole) => {
                    let fits = hole.min(left);
                    self.send_zeros(fits).await.map(|()| fits)
                }
            };
            let Ok(sent) = sent else {
                return Ok(());
            };
            offset += sent;
            if self.length == Some(offset) {
                return Ok(());
            }
            if sent == 0 {
                return match self.length {
                    None => Ok(()),
                    Some(_) => self.fail(self.changed()).await,
                };
            }
            let read = self
                .api
                .read_file(self.id, &self.path, offset, CHUNK_MAX_BYTES);
            chunk = match read.await {
                Ok(next) if next.version == version => next,
                Ok(_) => return self.fail(self.changed()).await,
                Err(error) => return self.fail(error).await,
            };
        }
    }

    fn changed(&self) -> Error {
        Error::Guest(GuestError::Changed {
            path: self.path.clone(),
        })
    }

    async fn send(&self, data: Bytes) -> Result<(), Gone> {
        self.sender.send(Ok(data)).await.map_err(|_| Gone)
    }

    async fn send_zeros(&self, mut left: u64) -> Result<(), Gone> {
        while left > 0 {
            let now = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.send(Bytes::from_static(&ZEROS[..now])).await?;
            left -= now as u64;
        }
        Ok(())
    }

    /// Breaks the connection, which is the only way left to say that something is wrong.
    async fn fail(&self, error: Error) -> Result<(), Error> {
        let broken = io::Error::other(error.to_string());
        let _ = self.sender.send(Err(broken)).await;
        Err(error)
    }
}
