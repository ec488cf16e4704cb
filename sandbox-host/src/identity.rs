//! What every identity has new, and a placeholder for guests that have none yet.

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use sandbox_core::clock::Clock;

use crate::{
    SystemClock,
    link::protocol::{Identity, Waking},
};

/// Bytes of entropy that a clone is given.
const ENTROPY_BYTES: usize = 64;

/// Fresh entropy and the time.
pub(crate) fn waking() -> io::Result<Waking> {
    Ok(Waking {
        entropy: entropy()?,
        unix_time_us: host_time_us(),
    })
}

fn entropy() -> io::Result<Bytes> {
    let mut entropy = vec![0; ENTROPY_BYTES];
    getrandom::fill(&mut entropy).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Bytes::from(entropy))
}

/// An identity with fresh entropy and the time, and names that are nobody's.
pub(crate) fn placeholder() -> io::Result<Identity> {
    Ok(Identity {
        hostname: "sandbox".to_owned(),
        machine_id: [0; 16],
        entropy: entropy()?,
        unix_time_us: host_time_us(),
        env: BTreeMap::new(),
    })
}

/// The guest's clock is set to the host's, which no test steers.
fn host_time_us() -> i64 {
    SystemClock.now().timestamp_micros()
}
