//! Content to send, and what came back.

use sandbox_sdk::ProcessEvent;

/// Bytes that differ from place to place.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

/// What was written to stdout, all of it.
pub(crate) fn stdout(events: &[ProcessEvent]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        match event {
            ProcessEvent::Stdout(more) => bytes.extend_from_slice(more),
            ProcessEvent::Dropped(count) => panic!("{count} bytes were lost"),
            ProcessEvent::Stderr(_) | ProcessEvent::Exit(_) => {}
        }
    }
    bytes
}
