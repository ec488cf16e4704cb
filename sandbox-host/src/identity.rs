//! What every identity has new, and a placeholder for guests that have none yet.

use std::{collections::BTreeMap, io, time::SystemTime};

use bytes::Bytes;

use crate::link::protocol::{Identity, Waking};

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
#[expect(
    clippy::disallowed_methods,
    reason = "a guest gets the real time, whatever a test does"
)]
fn host_time_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}
