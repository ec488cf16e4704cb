//! Frames: a length of four bytes, big-endian, one message in MessagePack with field names, and an
//! end mark of four bytes. The mark shows that the frame was not cut off and filled up by what the
//! next connection began with.

use std::{io, marker::PhantomData};

use bytes::{Buf, BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::codec::{Decoder, Encoder};

use super::preamble::{self, FrameStart, PREAMBLE_BYTES, Preamble};

/// The largest message, in bytes.
pub const FRAME_MAX_BYTES: usize = 8 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// Shares no byte with the preamble's magic.
const END_MARK: [u8; 4] = *b"~end";

/// Why a connection can't go on. Nothing of it can be used any more.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The stream broke.
    #[error("the link failed")]
    Io(#[from] io::Error),
    /// A message is above [`FRAME_MAX_BYTES`].
    #[error("a message of {0} bytes is larger than a frame may be")]
    TooLarge(usize),
    /// The other side sent something that is no message of ours.
    #[error("a message could not be read")]
    Decode(#[from] rmp_serde::decode::Error),
    /// One of our own messages could not be written down.
    #[error("a message could not be encoded")]
    Encode(#[from] rmp_serde::encode::Error),
    /// A message does not end where its length says.
    #[error("a message was cut off")]
    CutOff,
    /// Another connection begins here: its preamble is still in the buffer.
    #[error("a new connection begins on this stream")]
    NewConnection,
}

/// Encodes `Out` and decodes `In`.
#[derive(Debug)]
pub struct MessageCodec<In, Out> {
    opened_by: Preamble,
    messages: PhantomData<fn(Out) -> In>,
}

impl<In, Out> MessageCodec<In, Out> {
    /// A codec for the connection that this preamble opened.
    #[must_use]
    pub fn new(opened_by: Preamble) -> Self {
        Self {
            opened_by,
            messages: PhantomData,
        }
    }
}

impl<In: DeserializeOwned, Out> Decoder for MessageCodec<In, Out> {
    type Item = In;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<In>, CodecError> {
        loop {
            match preamble::at_frame_start(input) {
                FrameStart::Incomplete => return Ok(None),
                FrameStart::Preamble(again) if again == self.opened_by => {
                    input.advance(PREAMBLE_BYTES);
                }
                FrameStart::Preamble(_) => return Err(CodecError::NewConnection),
                FrameStart::Frame => break,
            }
        }
        let Some((length, body)) = input.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_MAX_BYTES {
            return Err(CodecError::TooLarge(length));
        }
        let framed = length + END_MARK.len();
        if body.len() < framed {
            if preamble::waits_behind_cut_frame(body) {
                return Err(CodecError::NewConnection);
            }
            let missing = LENGTH_BYTES + framed - input.len();
            input.reserve(missing);
            return Ok(None);
        }
        if body[length..framed] != END_MARK {
            return Err(CodecError::CutOff);
        }
        let message = rmp_serde::from_slice(&body[..length])?;
        input.advance(LENGTH_BYTES + framed);
        Ok(Some(message))
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<In>, CodecError> {
        // A frame cut off by the end of its connection is no error of its own.
        self.decode(input)
    }
}

impl<In, Out: Serialize> Encoder<Out> for MessageCodec<In, Out> {
    type Error = CodecError;

    fn encode(&mut self, message: Out, output: &mut BytesMut) -> Result<(), CodecError> {
        let start = output.len();
        output.put_u32(0);
        let written = rmp_serde::encode::write_named(&mut (&mut *output).writer(), &message);
        let length = output.len() - start - LENGTH_BYTES;
        let error = match written {
            Ok(()) if length <= FRAME_MAX_BYTES => {
                // The cast is exact: the limit is far below 2^32.
                output[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
                output.put_slice(&END_MARK);
                return Ok(());
            }
            Ok(()) => CodecError::TooLarge(length),
            Err(error) => error.into(),
        };
        output.truncate(start);
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    type Codec = MessageCodec<(u32, Bytes), (u32, Bytes)>;

    fn opened_by(nonce: u8) -> Preamble {
        Preamble::new([nonce; 8])
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(
            messages in proptest::collection::vec(
                (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..10),
            cuts in proptest::collection::vec(1usize..64, 1..30),
        ) {
            let mut codec = Codec::new(opened_by(1));
            let mut wire = BytesMut::new();
            for (number, data) in &messages {
                codec.encode((*number, data.clone().into()), &mut wire).unwrap();
                wire.extend_from_slice(opened_by(1).as_bytes()); // repeated by an impatient host
            }
            let (mut input, mut got) = (BytesMut::new(), Vec::new());
            for cut in cuts.iter().cycle() {
                if wire.is_empty() { break; }
                input.extend_from_slice(&wire.split_to((*cut).min(wire.len())));
                while let Some((number, data)) = codec.decode(&mut input).unwrap() {
                    got.push((number, data.to_vec()));
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn garbage_is_an_error_or_waits_and_never_panics(
            garbage in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut input = BytesMut::from(&garbage[..]);
            let mut codec = Codec::new(opened_by(1));
            while let Ok(Some(_)) = codec.decode(&mut input) {}
        }
    }

    #[test]
    fn trap_28_a_new_preamble_between_frames_is_kept_for_the_next_connection() {
        let mut codec = Codec::new(opened_by(1));
        let mut input = BytesMut::new();
        codec.encode((5, Bytes::new()), &mut input).unwrap();
        input.extend_from_slice(opened_by(2).as_bytes());
        assert!(matches!(codec.decode(&mut input), Ok(Some((5, _)))));
        assert!(matches!(
            codec.decode(&mut input),
            Err(CodecError::NewConnection)
        ));
        assert_eq!(preamble::find_any(&mut input), Some(opened_by(2)));
    }

    #[test]
    fn trap_28_a_cut_frame_does_not_swallow_the_next_connection() {
        let mut codec = Codec::new(opened_by(1));
        let mut input = BytesMut::new();
        codec
            .encode((5, Bytes::from(vec![0; 1000])), &mut input)
            .unwrap();
        input.truncate(500);
        input.extend_from_slice(opened_by(2).as_bytes());
        assert!(matches!(codec.decode(&mut input), Ok(None)));
        input.extend_from_slice(opened_by(2).as_bytes());
        assert!(matches!(
            codec.decode(&mut input),
            Err(CodecError::NewConnection)
        ));
        assert_eq!(preamble::find_any(&mut input), Some(opened_by(2)));
        assert!(matches!(
            Codec::new(opened_by(2)).decode(&mut input),
            Ok(None)
        ));
        assert!(input.is_empty());
    }

    #[test]
    fn trap_28_a_cut_frame_is_never_completed_by_the_next_preamble() {
        let mut whole = BytesMut::new();
        Codec::new(opened_by(1))
            .encode((5, Bytes::from(vec![0; 40])), &mut whole)
            .unwrap();
        for cut in 1..whole.len() {
            let mut input = BytesMut::from(&whole[..cut]);
            let mut codec = Codec::new(opened_by(1));
            for _ in 0..4 {
                input.extend_from_slice(opened_by(2).as_bytes());
                match codec.decode(&mut input) {
                    Ok(Some(message)) => panic!("cut at {cut} gave {message:?}"),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            assert_eq!(preamble::find_any(&mut input), Some(opened_by(2)));
        }
    }

    #[test]
    fn trap_36_a_message_over_the_limit_is_refused_and_leaves_nothing_in_the_buffer() {
        let mut codec = Codec::new(opened_by(1));
        let mut output = BytesMut::from(&b"before"[..]);
        let large = Bytes::from(vec![0; FRAME_MAX_BYTES + 1]);
        assert!(matches!(
            codec.encode((1, large), &mut output),
            Err(CodecError::TooLarge(_))
        ));
        assert_eq!(&output[..], b"before");
    }
}
