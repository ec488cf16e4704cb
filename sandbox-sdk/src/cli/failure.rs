//! What goes wrong, as one line that says what, why, and what to do.

use std::{io, process::ExitCode};

use sandbox_core::{error::Error, guest::GuestError};

/// Not done.
pub(super) const FAILED: u8 = 1;
/// A time limit ended the command.
pub(super) const TIMED_OUT: u8 = 124;
/// `exec` itself failed.
pub(super) const EXEC_FAILED: u8 = 125;
/// The command could not be started.
pub(super) const NOT_STARTED: u8 = 126;
/// Interrupted from the keyboard.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The platform's word.
    #[error("{0}")]
    Platform(#[from] Error),
    /// This program's own.
    #[error("{0}")]
    Own(String),
    /// Something on this machine.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// Why it went wrong.
        source: io::Error,
    },
    /// Nobody reads our output any more.
    #[error("nobody reads the output")]
    NoReader,
    /// The user has had enough.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    pub(super) fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Local { what, source }
    }

    /// Of writing to stdout.
    pub(super) fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::NoReader;
        }
        let what = "can't write to stdout".to_owned();
        Self::Local { what, source }
    }

    /// What this program exits with.
    pub(super) fn exit_code(&self, in_exec: bool) -> u8 {
        match self {
            Self::NoReader => 128 + super::signal::PIPE as u8,
            Self::Interrupted => INTERRUPTED,
            Self::Platform(Error::Guest(GuestError::Spawn { .. })) if in_exec => NOT_STARTED,
            _ if in_exec => EXEC_FAILED,
            _ => FAILED,
        }
    }

    /// In one word, for programs; the words are those of the REST interface.
    fn code(&self) -> &'static str {
        let error = match self {
            Self::Platform(error) => error,
            Self::Own(_) | Self::Local { .. } => return "invalid_request",
            Self::NoReader | Self::Interrupted => return "interrupted",
        };
        match error {
            Error::InvalidRequest(_) => "invalid_request",
            Error::Unauthorized(_) => "unauthorized",
            Error::SandboxNotFound(_)
            | Error::OperationNotFound(_)
            | Error::TemplateNotFound(_)
            | Error::BuildNotFound(_)
            | Error::Guest(GuestError::NotFound { .. } | GuestError::NoSuchProcess { .. }) => {
                "not_found"
            }
            Error::TemplateExists(_) | Error::Guest(GuestError::AlreadyExists { .. }) => {
                "already_exists"
            }
            Error::Forbidden(_) => "forbidden",
            Error::InvalidState { .. }
            | Error::BuildEnded { .. }
            | Error::Guest(GuestError::NotAttached { .. }) => "invalid_state",
            Error::Conflict(_)
            | Error::IdempotencyMismatch
            | Error::Guest(GuestError::Changed { .. } | GuestError::NoSuchWrite) => "conflict",
            Error::Guest(GuestError::DiskFull { .. }) => "too_large",
            Error::Guest(GuestError::Limit { .. }) => "quota_exceeded",
            Error::Guest(_) => "invalid_request",
            Error::Capacity(_) | Error::NotSetUp(_) => "host_unavailable",
            Error::GuestUnavailable(_) | Error::Unavailable(_) => "unavailable",
            Error::Host(_) => "host_error",
            Error::Unsupported(_) => "unsupported",
            _ => "internal",
        }
    }

    /// What to do, where that can be said.
    fn next(&self) -> Option<&'static str> {
        let Self::Platform(error) = self else {
            return None;
        };
        Some(match error {
            Error::SandboxNotFound(_) => "`sandbox ls` lists those there are",
            Error::TemplateNotFound(_) => "`sandbox templates` lists those there are",
            Error::BuildNotFound(_) => "`sandbox build ls` lists those there are",
            Error::BuildEnded { .. } => "`sandbox build get ID` says how",
            Error::TemplateExists(_) => {
                "choose another name, or remove that one with `sandbox template rm`"
            }
            Error::InvalidState { .. } => "`sandbox get ID` says how it stands and why",
            Error::Unauthorized(_) => {
                "set SANDBOX_API_KEY or give --key-file; sandboxd keeps its key in DIR/admin.key"
            }
            Error::NotSetUp(_) => "`sandbox doctor` lists all that is missing",
            Error::Capacity(_) => "remove sandboxes with `sandbox rm`, or ask for less",
            Error::Guest(GuestError::NoSuchProcess { .. }) => "`sandbox ps ID` lists processes",
            Error::Guest(GuestError::NoSuchUser { .. }) => "/etc/passwd in it lists its users",
            Error::Guest(GuestError::DiskFull { .. }) => {
                "remove files in it, or make one with a larger --disk-size-mb"
            }
            Error::GuestUnavailable(_) => "`sandbox get ID` says whether it still runs",
            _ => return None,
        })
    }

    /// The one line, without control characters that a guest may have put there.
    pub(super) fn line(&self) -> String {
        let words = self.to_string();
        let next = self
            .next()
            .map_or(String::new(), |next| format!("; {next}"));
        let line = format!("{words}{next}");
        line.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }

    /// Tells it and gives the exit code.
    #[expect(clippy::print_stderr, reason = "this is where a person reads it")]
    pub(super) fn tell(&self, json: bool, in_exec: bool) -> ExitCode {
        match self {
            Self::NoReader => {}
            _ if json => {
                let error = serde_json::json!({"code": self.code(), "message": self.line()});
                eprintln!("{}", serde_json::json!({ "error": error }));
            }
            _ => eprintln!("sandbox: {}", self.line()),
        }
        self.exit_code(in_exec).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r45_a_failure_is_one_line_with_what_to_do() {
        let id = "sb-0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        let failure = Failure::from(Error::SandboxNotFound(id));
        assert!(failure.line().contains("sandbox ls"));
        let nasty = Failure::Own("one\ntwo\u{1b}[31m".to_owned());
        assert_eq!(nasty.line(), "one two [31m");
    }

    #[test]
    fn r45_exec_tells_its_own_failures_from_the_command_s() {
        let spawn = Failure::from(Error::Guest(GuestError::Spawn {
            command: "x".to_owned(),
            problem: "no".to_owned(),
        }));
        let other = Failure::from(Error::Unavailable("x".to_owned()));
        assert_eq!((spawn.exit_code(true), spawn.exit_code(false)), (126, 1));
        assert_eq!((other.exit_code(true), other.exit_code(false)), (125, 1));
        assert_eq!(Failure::NoReader.exit_code(true), 141);
    }
}
