//! Frames: a length of four bytes, big-endian, and one message in MessagePack with field names, so
//! that neighbouring versions understand one another.

use std::{
    io,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::{Buf, BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tarpc::{ClientMessage, Response};
use tokio_util::codec::{Decoder, Encoder};

/// The largest message, in bytes.
pub const FRAME_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The largest message of someone who has not shown who it is.
const STRANGER_FRAME_MAX_BYTES: usize = 16 * 1024;

const LENGTH_BYTES: usize = 4;

/// Why a connection can't go on.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The stream broke, or ended.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// A message is larger than the other side takes.
    #[error("a message of {0} bytes is larger than one may be")]
    TooLarge(usize),
    /// The other side sent something that is no message of ours.
    #[error("a message could not be read: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// One of our own messages could not be written down.
    #[error("a message could not be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// How large the frames are that a connection takes. Clones are one limit.
#[derive(Debug, Clone)]
pub struct FrameLimit(Arc<AtomicUsize>);

impl FrameLimit {
    /// Small frames only, until [`lift`](Self::lift)ed.
    #[must_use]
    pub fn for_a_stranger() -> Self {
        Self(Arc::new(AtomicUsize::new(STRANGER_FRAME_MAX_BYTES)))
    }

    /// Frames of any size that is allowed at all.
    pub fn lift(&self) {
        self.0.store(FRAME_MAX_BYTES, Ordering::Release);
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether anything has come in lately. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Heard(Arc<AtomicBool>);

impl Heard {
    fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether something has come in since the last time that this was asked.
    pub fn lately(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// The client's end: requests out, responses in.
#[derive(Debug)]
pub struct ClientCodec<Q, R> {
    heard: Heard,
    messages: PhantomData<fn(Q) -> R>,
}

impl<Q, R> ClientCodec<Q, R> {
    /// A codec that notes in `heard` that something came in.
    #[must_use]
    pub fn new(heard: Heard) -> Self {
        Self {
            heard,
            messages: PhantomData,
        }
    }
}

impl<Q, R: DeserializeOwned> Decoder for ClientCodec<Q, R> {
    type Item = Response<R>;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Self::Item>, CodecError> {
        self.heard.note();
        decode(input, FRAME_MAX_BYTES)
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Self::Item>, CodecError> {
        decode_eof(input, FRAME_MAX_BYTES)
    }
}

impl<Q: Serialize, R> Encoder<ClientMessage<Q>> for ClientCodec<Q, R> {
    type Error = CodecError;

    fn encode(
        &mut self,
        message: ClientMessage<Q>,
        output: &mut BytesMut,
    ) -> Result<(), CodecError> {
        encode(&message, output)
    }
}

/// The server's end: requests in, responses out.
#[derive(Debug)]
pub struct ServerCodec<Q, R>(FrameLimit, PhantomData<fn(R) -> Q>);

impl<Q, R> ServerCodec<Q, R> {
    /// A codec that takes frames up to this limit.
    #[must_use]
    pub fn new(limit: FrameLimit) -> Self {
        Self(limit, PhantomData)
    }
}

impl<Q: DeserializeOwned, R> Decoder for ServerCodec<Q, R> {
    type Item = ClientMessage<Q>;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Self::Item>, CodecError> {
        decode(input, self.0.bytes())
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Self::Item>, CodecError> {
        decode_eof(input, self.0.bytes())
    }
}

impl<Q, R: Serialize> Encoder<Response<R>> for ServerCodec<Q, R> {
    type Error = CodecError;

    /// A response that does not fit becomes an error of its own call: the connection is everyone's.
    fn encode(&mut self, response: Response<R>, output: &mut BytesMut) -> Result<(), CodecError> {
        let request_id = response.request_id;
        match encode(&response, output) {
            Err(CodecError::TooLarge(bytes)) => {
                let detail = format!("the answer has {bytes} bytes, more than a message may have");
                let refusal = tarpc::ServerError::new(io::ErrorKind::InvalidData, detail);
                let response = Response::<R> {
                    request_id,
                    message: Err(refusal),
                };
                encode(&response, output)
            }
            other => other,
        }
    }
}

fn decode<T: DeserializeOwned>(
    input: &mut BytesMut,
    bytes_max: usize,
) -> Result<Option<T>, CodecError> {
    let Some((length, body)) = input.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > bytes_max {
        return Err(CodecError::TooLarge(length));
    }
    let Some(message) = body.get(..length) else {
        let missing = length - body.len();
        input.reserve(missing);
        return Ok(None);
    };
    let message = rmp_serde::from_slice(message)?;
    input.advance(LENGTH_BYTES + length);
    Ok(Some(message))
}

/// The end of the stream is an error: tarpc would otherwise wait for calls that nobody awaits.
fn decode_eof<T: DeserializeOwned>(
    input: &mut BytesMut,
    bytes_max: usize,
) -> Result<Option<T>, CodecError> {
    match decode(input, bytes_max)? {
        Some(message) => Ok(Some(message)),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

fn encode<T: Serialize>(message: &T, output: &mut BytesMut) -> Result<(), CodecError> {
    let start = output.len();
    output.put_u32(0);
    let written = rmp_serde::encode::write_named(&mut (&mut *output).writer(), message);
    let length = output.len() - start - LENGTH_BYTES;
    let error = match written {
        Ok(()) if length <= FRAME_MAX_BYTES => {
            // The cast is exact: the limit is far below 2^32.
            output[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
            return Ok(());
        }
        Ok(()) => CodecError::TooLarge(length),
        Err(error) => error.into(),
    };
    output.truncate(start);
    Err(error)
}
