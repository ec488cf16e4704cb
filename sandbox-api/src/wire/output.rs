//! What processes write, on the wire.

use sandbox_core::process::{Output, OutputChunk, OutputStream};
use serde::Serialize;
use utoipa::ToSchema;

use crate::wire::{
    process::ProcessExit,
    text::{Encoding, encoded, encoding_of},
};

/// Which of a process's two outputs bytes came from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StreamName {
    /// Standard output, and everything where the process has a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl From<OutputStream> for StreamName {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

/// Bytes that a process wrote.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Chunk {
    /// Where they came from.
    pub(crate) stream: StreamName,
    /// The bytes.
    pub(crate) data: String,
    /// How they are written. A character that was cut in two makes its pieces base64.
    pub(crate) encoding: Encoding,
}

impl From<&OutputChunk> for Chunk {
    fn from(chunk: &OutputChunk) -> Self {
        let encoding = encoding_of(&[&chunk.data]);
        Self {
            stream: chunk.stream.into(),
            data: encoded(&chunk.data, encoding),
            encoding,
        }
    }
}

/// A piece of a process's output.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputPiece {
    /// Bytes between the offset that was asked for and the first chunk that are gone.
    dropped_bytes: u64,
    /// What there is, in order.
    chunks: Vec<Chunk>,
    /// The offset to ask for next.
    next_offset: u64,
    /// How the process ended, once this reaches the end of its output.
    #[schema(required = true)]
    exit: Option<ProcessExit>,
}

impl From<Output> for OutputPiece {
    fn from(output: Output) -> Self {
        Self {
            dropped_bytes: output.dropped_bytes,
            chunks: output.chunks.iter().map(Chunk::from).collect(),
            next_offset: output.next_offset,
            exit: output.exit.map(ProcessExit::from),
        }
    }
}
