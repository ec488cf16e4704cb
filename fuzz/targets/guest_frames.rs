//! The guest link's byte stream, from either side. Input: eight bytes of nonce, one byte for the
//! size of the pieces in which the stream arrives, then the stream.
//!
//! Whatever a guest or a broken connection sends, the reader neither panics nor keeps what it has
//! refused, and a whole conversation behind it is read as it was written.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use sandbox_host::link::{
    codec::{CodecError, FRAME_MAX_BYTES, MessageCodec},
    preamble::{self, PREAMBLE_BYTES, Preamble},
    protocol::{GuestAgentRequest, GuestAgentResponse},
};
use tarpc::{ClientMessage, Response};
use tokio_util::codec::{Decoder, Encoder};

type Request = ClientMessage<GuestAgentRequest>;
type Answer = Response<GuestAgentResponse>;

/// Reads a stream as the host or the agent does: frames, and on from the next preamble where
/// another connection begins.
fn read<In, Out>(stream: &[u8], piece: usize, opened_by: Preamble)
where
    MessageCodec<In, Out>: Decoder<Item = In, Error = CodecError>,
{
    let mut codec = MessageCodec::<In, Out>::new(opened_by);
    let mut input = BytesMut::new();
    for part in stream.chunks(piece) {
        input.extend_from_slice(part);
        loop {
            match codec.decode(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    assert!(input.len() <= FRAME_MAX_BYTES + 2 * PREAMBLE_BYTES);
                    break;
                }
                Err(CodecError::NewConnection) => {
                    let Some(next) = preamble::find_any(&mut input) else {
                        panic!("a new connection without its preamble");
                    };
                    codec = MessageCodec::new(next);
                }
                Err(_) => return,
            }
        }
    }
}

/// A message behind any stream at all, on a connection of its own.
fn is_read_behind(garbage: &[u8], piece: usize, opened_by: Preamble) {
    type Codec = MessageCodec<(u32, Bytes), (u32, Bytes)>;
    let message = (7, Bytes::copy_from_slice(garbage));
    let mut wire = BytesMut::from(garbage);
    wire.extend_from_slice(opened_by.as_bytes());
    let Ok(()) = Codec::new(opened_by).encode(message.clone(), &mut wire) else {
        panic!("{} bytes do not fit a frame", garbage.len());
    };

    let mut codec = Codec::new(opened_by);
    let (mut input, mut open, mut got) = (BytesMut::new(), false, None);
    for part in wire.chunks(piece) {
        input.extend_from_slice(part);
        if !open {
            open = preamble::find_own(&mut input, &opened_by);
        }
        // The garbage may hold this very preamble; what follows is then no conversation.
        while open && got.is_none() {
            match codec.decode(&mut input) {
                Ok(Some(read)) => got = Some(read),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(open);
    let magic_inside = garbage
        .windows(preamble::MAGIC.len())
        .any(|window| window == preamble::MAGIC);
    if !magic_inside {
        assert_eq!(got, Some(message));
        assert!(input.is_empty());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((nonce, [piece, stream @ ..])) = data.split_first_chunk::<8>() else {
        return;
    };
    let (opened_by, piece) = (Preamble::new(*nonce), usize::from(*piece) + 1);
    read::<Request, Answer>(stream, piece, opened_by);
    read::<Answer, Request>(stream, piece, opened_by);
    is_read_behind(stream, piece, opened_by);
});
