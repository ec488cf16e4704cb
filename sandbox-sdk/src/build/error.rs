//! Why a build made no template.

use sandbox_core::{
    build::{BuildDetails, BuildStatus},
    error::Error,
    id::BuildId,
};

/// The most of a step's output that goes with an error, in bytes.
const TAIL_BYTES: usize = 4096;

/// Why a build made no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Box<FailedBuild>),
    /// Someone cancelled it.
    #[error("the build {0} was cancelled")]
    Cancelled(BuildId),
    /// The platform could not be asked, or refused the build.
    #[error(transparent)]
    Platform(#[from] Error),
}

/// A build that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the build {id} failed: {message}")]
#[non_exhaustive]
pub struct FailedBuild {
    /// Which.
    pub id: BuildId,
    /// What went wrong, with the end of what the step printed.
    pub message: String,
    /// The step that failed, where it was one.
    pub step: Option<FailedStep>,
    /// Under what the platform's log has the details, where there are any that are not for clients.
    pub error_id: Option<String>,
}

/// The step at which a build failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedStep {
    /// Counted from 1 over all phases.
    pub step: u32,
    /// What was done, as the recipe has it.
    pub cmd: String,
    /// Its exit code, where it was a command that has exited.
    pub exit_code: Option<i32>,
    /// The end of what it wrote to standard output.
    pub stdout: String,
    /// The end of what it wrote to standard error.
    pub stderr: String,
}

impl BuildError {
    /// Of a build that has ended and made nothing.
    pub(super) fn of(build: BuildDetails) -> Self {
        let record = build.record;
        if record.status == BuildStatus::Cancelled {
            return Self::Cancelled(record.id);
        }
        let Some(failure) = record.failure else {
            let words = format!("the build {} has ended without a template", record.id);
            return Self::Platform(Error::Internal(words));
        };
        let mut steps = build.steps.into_iter();
        let step = steps.find(|step| Some(step.step.step) == failure.step);
        Self::Failed(Box::new(FailedBuild {
            id: record.id,
            message: failure.message,
            step: step.map(|step| FailedStep {
                step: step.step.step,
                exit_code: step.step.exit_code,
                stdout: tail(&step.stdout),
                stderr: tail(&step.stderr),
                cmd: step.step.cmd,
            }),
            error_id: failure.error_id,
        }))
    }
}

/// The end of what was printed: whole lines, where there are any.
fn tail(printed: &[u8]) -> String {
    let cut = printed.len().saturating_sub(TAIL_BYTES);
    let end = &printed[cut..];
    let line = end.iter().position(|byte| *byte == b'\n');
    let from = match line {
        Some(at) if cut > 0 && at + 1 < end.len() => at + 1,
        _ => 0,
    };
    String::from_utf8_lossy(&end[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r33_the_tail_of_what_was_printed_begins_with_a_line() {
        assert_eq!(tail(b"one\ntwo\n"), "one\ntwo\n");
        let long = "a line\n".repeat(1000);
        let end = tail(long.as_bytes());
        assert!(end.starts_with("a line\n") && end.len() <= TAIL_BYTES);
        let unbroken = "x".repeat(9999);
        assert_eq!(tail(unbroken.as_bytes()).len(), TAIL_BYTES);
    }
}
