//! How a connection begins, so that what an earlier one left in a buffer is never taken for a part
//! of it.
//!
//! A virtio-serial port is not a socket: bytes of a host that has gone may still be unread in the
//! guest when the next host connects, an answer may be cut off in its middle, and a memory snapshot
//! freezes all of that. So the host begins with a preamble, a fixed magic and a fresh nonce; the
//! agent discards input up to a magic and sends the preamble back; the host discards input up to
//! its own. From there on both read frames.
//!
//! ```text
//! host   send P(n) ──► discard until P(n) ──► frames ──(lost)──► new nonce, from the start
//!          └─ again from time to time ─┘
//! agent  discard until magic ──► echo P(n) ──► frames ──(lost, or a preamble)──► from the start
//!              ▲                                  │
//!              └────── rescan what is buffered ───┘
//! ```
//!
//! The agent may miss that one host went and another came. Then a preamble stands where a frame
//! should begin, which shows because the magic read as a length is above every limit; or it stands
//! inside a frame that was cut off, which shows when the host, having no answer, repeats it.
//! Repetitions of the preamble that opened a connection are skipped by both.

use bytes::{Buf, BytesMut};

/// Begins every preamble. Read as a frame's length it is far above the limit.
pub const MAGIC: [u8; 8] = *b"\xf5SBX\x0d\x0a\x1a\x01";

/// Length of a preamble: the magic and a nonce of eight bytes.
pub const PREAMBLE_BYTES: usize = 16;

/// How often the host repeats an unanswered preamble, in milliseconds.
pub const REPEAT_MS: u64 = 250;

/// The start of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble([u8; PREAMBLE_BYTES]);

impl Preamble {
    /// A preamble with this nonce, which must be new for each connection.
    #[must_use]
    pub fn new(nonce: [u8; 8]) -> Self {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..].copy_from_slice(&nonce);
        Self(bytes)
    }

    /// What goes over the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PREAMBLE_BYTES] {
        &self.0
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; PREAMBLE_BYTES] = bytes.get(..PREAMBLE_BYTES)?.try_into().ok()?;
        bytes.starts_with(&MAGIC).then_some(Self(bytes))
    }
}

/// Agent: discards input up to the first preamble and takes that too. `None` needs more input;
/// what may be the start of a preamble stays in `input`.
pub fn find_any(input: &mut BytesMut) -> Option<Preamble> {
    find(input, &MAGIC)?;
    let found = Preamble::read(input)?;
    input.advance(PREAMBLE_BYTES);
    Some(found)
}

/// Host: discards input up to this preamble and takes it too; `false` needs more input.
pub fn find_own(input: &mut BytesMut, own: &Preamble) -> bool {
    let found = find(input, own.as_bytes()).is_some();
    if found {
        input.advance(PREAMBLE_BYTES);
    }
    found
}

/// Discards what stands before `pattern`, or what cannot be its beginning.
fn find(input: &mut BytesMut, pattern: &[u8]) -> Option<()> {
    if let Some(at) = input
        .windows(pattern.len())
        .position(|window| window == pattern)
    {
        input.advance(at);
        return Some(());
    }
    let keep = (1..pattern.len().min(input.len() + 1))
        .rev()
        .find(|&length| input.ends_with(&pattern[..length]))
        .unwrap_or(0);
    input.advance(input.len() - keep);
    None
}

/// What stands at the start of `input`, where a frame is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameStart {
    /// Too little to tell.
    Incomplete,
    /// A frame, or at any rate no preamble.
    Frame,
    /// A preamble.
    Preamble(Preamble),
}

/// Looks for a preamble where a frame should begin.
pub(crate) fn at_frame_start(input: &[u8]) -> FrameStart {
    let common = input.len().min(MAGIC.len());
    if input.is_empty() {
        FrameStart::Incomplete
    } else if input[..common] != MAGIC[..common] {
        FrameStart::Frame
    } else {
        Preamble::read(input).map_or(FrameStart::Incomplete, FrameStart::Preamble)
    }
}

/// Whether input that stops in the middle of a frame ends in one preamble twice: a host that
/// waits for an answer, behind a frame that was never finished.
pub(crate) fn waits_behind_cut_frame(input: &[u8]) -> bool {
    let Some(tail) = input.len().checked_sub(2 * PREAMBLE_BYTES) else {
        return false;
    };
    let (first, second) = input[tail..].split_at(PREAMBLE_BYTES);
    first == second && first.starts_with(&MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn magic_is_no_valid_frame_length() {
        let length = u32::from_be_bytes([MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3]]);
        assert!(length as usize > crate::link::codec::FRAME_MAX_BYTES);
    }

    proptest! {
        #[test]
        fn trap_28_agent_finds_a_preamble_behind_any_garbage_however_it_is_cut(
            garbage in proptest::collection::vec(any::<u8>(), 0..200),
            half_magic in 0usize..8,
            nonce: [u8; 8],
            cuts in proptest::collection::vec(1usize..40, 1..40),
            rest in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let wanted = Preamble::new(nonce);
            let mut wire = garbage;
            wire.extend_from_slice(&MAGIC[..half_magic]);
            wire.extend_from_slice(wanted.as_bytes());
            wire.extend_from_slice(&rest);
            let (mut input, mut found, mut at) = (BytesMut::new(), None, 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(wire.len());
                input.extend_from_slice(&wire[at..end]);
                at = end;
                if found.is_none() {
                    found = find_any(&mut input);
                }
                if at == wire.len() { break; }
            }
            prop_assert_eq!(found, Some(wanted));
            prop_assert_eq!(&input[..], &rest[..]);
        }

        #[test]
        fn trap_28_host_takes_no_other_connections_preamble(
            old: [u8; 8], new: [u8; 8], tail in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            prop_assume!(old != new);
            let own = Preamble::new(new);
            let mut input = BytesMut::from(&Preamble::new(old).as_bytes()[..]);
            prop_assert!(!find_own(&mut input, &own));
            input.extend_from_slice(own.as_bytes());
            input.extend_from_slice(&tail);
            prop_assert!(find_own(&mut input, &own));
            prop_assert_eq!(&input[..], &tail[..]);
        }
    }

    #[test]
    fn input_without_a_preamble_does_not_pile_up() {
        let mut input = BytesMut::from(&vec![0xf5; 100_000][..]);
        assert_eq!(find_any(&mut input), None);
        assert!(input.len() < PREAMBLE_BYTES);
    }

    #[test]
    fn a_repeated_preamble_inside_a_cut_frame_shows() {
        let preamble = Preamble::new([7; 8]);
        let mut input = vec![0, 0, 4, 0, 1, 2, 3];
        input.extend_from_slice(preamble.as_bytes());
        assert!(!waits_behind_cut_frame(&input));
        input.extend_from_slice(preamble.as_bytes());
        assert!(waits_behind_cut_frame(&input));
        input.push(0);
        assert!(!waits_behind_cut_frame(&input));
    }
}
