//! What all connections between our programs have in common: frames, addresses, and the words with
//! which two sides begin. Bytes in, messages out: no socket, and no message of any one interface.
//!
//! The link to a guest has a codec of its own: its byte stream outlives connections.

mod address;
mod codec;
mod hello;
mod page;
mod secret;

pub use address::Address;
pub use codec::{ClientCodec, CodecError, FRAME_MAX_BYTES, FrameLimit, Heard, ServerCodec};
pub use hello::{ClientHello, NoWelcome, Refusal, ServerHello, judge, understands};
pub use page::{entry_bytes, how_many_fit};
pub use secret::Secret;

use std::time::Duration;

use uuid::Uuid;

/// Up to a half shorter, so that many clients do not come back in step.
#[must_use]
pub fn shorter_by_chance(pause: Duration) -> Duration {
    // The last bytes of such an ID are random.
    let chance = Uuid::now_v7().as_bytes()[15];
    pause - pause.mul_f64(f64::from(chance) / 512.0)
}
