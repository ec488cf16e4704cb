//! Answers that would be larger than a message may be, in pieces.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use sandbox_core::{
    build::{BuildDetails, BuildRecord, LogEntry, Step},
    error::Error,
    process::ExecOutput,
    sandbox::SandboxRecord,
    template::TemplateUse,
};

use super::requests::{self, Outcome};
use crate::rpc::protocol::{ExecProgress, ToldBuild};

/// How long one call waits for a command to end.
const EXEC_WAIT: Duration = Duration::from_secs(10);
/// The most output of a command in one message, in bytes.
const EXEC_PIECE_BYTES: usize = 1024 * 1024;

/// Waits a while for a command's end and gives a piece of what it wrote.
pub(super) async fn progress(
    outcome: Outcome<Arc<ExecOutput>>,
    offset: u64,
) -> Result<ExecProgress, Error> {
    let Some(ended) = requests::within(outcome, EXEC_WAIT).await else {
        return Ok(ExecProgress::Running);
    };
    let output = ended?;
    Ok(ExecProgress::Ended {
        status: output.status,
        timed_out: output.timed_out,
        duration_us: u64::try_from(output.duration.as_micros()).unwrap_or(u64::MAX),
        dropped_bytes: output.dropped_bytes,
        stdout_bytes: output.stdout.len() as u64,
        stderr_bytes: output.stderr.len() as u64,
        piece: piece(&output, usize::try_from(offset).unwrap_or(usize::MAX)),
    })
}

pub(super) fn written(output: &Arc<ExecOutput>) -> usize {
    output.stdout.len() + output.stderr.len()
}

/// What stands at an offset into stdout with stderr behind it.
fn piece(output: &ExecOutput, offset: usize) -> Bytes {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    let part = |of: &Bytes, from: usize, room: usize| {
        let from = from.min(of.len());
        of.slice(from..of.len().min(from.saturating_add(room)))
    };
    let first = part(stdout, offset, EXEC_PIECE_BYTES);
    let room = EXEC_PIECE_BYTES - first.len();
    let second = part(stderr, offset.saturating_sub(stdout.len()), room);
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        (false, false) => {
            let mut both = BytesMut::from(first);
            both.extend_from_slice(&second);
            both.freeze()
        }
    }
}

/// Names of fields, and all fields of a bounded size.
const FIXED_BYTES: usize = 1024;

pub(super) fn record_bytes(record: &SandboxRecord) -> usize {
    let pairs = record.metadata.iter().chain(&record.env);
    let pairs: usize = pairs.map(|(key, value)| key.len() + value.len() + 10).sum();
    let key = record.idempotency_key.as_ref().map_or(0, String::len);
    FIXED_BYTES + pairs + key + record.reason.len()
}

/// An ID is some 20 bytes in binary and 40 as text.
pub(super) fn use_bytes(one: &TemplateUse) -> usize {
    FIXED_BYTES + one.in_use_by.len() * 48
}

/// What a build's steps may have printed together to go with it, in bytes: half of a frame.
const PRINTED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A build with what its steps printed, where that fits.
pub(super) fn build(mut build: BuildDetails) -> ToldBuild {
    let printed = build.steps.iter();
    let printed: usize = printed
        .map(|step| step.stdout.len() + step.stderr.len())
        .sum();
    let without_output = printed > PRINTED_BYTES_MAX;
    if without_output {
        for step in &mut build.steps {
            step.stdout = Vec::new();
            step.stderr = Vec::new();
        }
    }
    ToldBuild {
        build,
        without_output,
    }
}

pub(super) fn build_bytes(record: &BuildRecord) -> usize {
    // Texts and, in a step, the names of its fields.
    let steps = record.recipe.steps.iter().map(Step::text);
    let steps: usize = steps.map(|text| 2 * text.len() + 64).sum();
    let check = record.healthcheck.as_ref().map_or(0, |it| it.cmd.len());
    let failure = record.failure.as_ref().map_or(0, |it| it.message.len());
    let key = record.idempotency_key.as_ref().map_or(0, String::len);
    FIXED_BYTES + steps + check + failure + key
}

pub(super) fn entry_bytes(entry: &LogEntry) -> usize {
    128 + entry.data.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_core::process::ExitStatus;

    #[test]
    fn r5_pieces_of_an_output_put_together_are_the_output() {
        for (stdout, stderr) in [
            (0, 0),
            (5, 3),
            (EXEC_PIECE_BYTES, 1),
            (3_000_000, 2_500_000),
        ] {
            let output = ExecOutput {
                status: ExitStatus::Code(0),
                timed_out: false,
                stdout: (0..stdout)
                    .map(|n| (n % 251) as u8)
                    .collect::<Vec<_>>()
                    .into(),
                stderr: (0..stderr)
                    .map(|n| (n % 241) as u8)
                    .collect::<Vec<_>>()
                    .into(),
                dropped_bytes: 0,
                duration: Duration::ZERO,
            };
            let mut whole = Vec::new();
            while whole.len() < stdout + stderr {
                let piece = piece(&output, whole.len());
                assert!((1..=EXEC_PIECE_BYTES).contains(&piece.len()));
                whole.extend_from_slice(&piece);
            }
            assert_eq!(whole, [&output.stdout[..], &output.stderr[..]].concat());
            assert!(piece(&output, whole.len()).is_empty());
            assert!(piece(&output, usize::MAX).is_empty());
        }
    }
}
