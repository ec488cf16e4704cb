//! Commands on the wire.

use std::{collections::BTreeMap, time::Duration};

use sandbox_core::process::{Command, ProcessSpec, PtySize, Stdin, WhenFull};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    error::ApiError,
    wire::{
        schema::{arguments, environment},
        text::given,
        whole,
    },
};

/// Stamps a body that describes a command: what all of them have, and then its own fields. Serde
/// could flatten one struct into another, but would then no longer refuse fields that it does not
/// know, nor name those that make no sense.
macro_rules! command_body {
    (
        $(#[doc = $doc:literal])*
        $name:ident, such as $example:tt;
        $stdin_doc:literal or else $no_stdin:expr;
        $($own:tt)*
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            /// A line for `/bin/sh -c`; with `args` a program, looked up in `PATH`.
            #[schema(example = $example, pattern = "^[^\\x00]*[^\\s\\x00][^\\x00]*$")]
            cmd: String,
            /// Arguments of the program.
            #[schema(schema_with = arguments)]
            args: Option<Vec<String>>,
            /// Working directory, absolute; the user's home where absent.
            #[schema(pattern = "^/[^\\x00]*$")]
            cwd: Option<String>,
            /// Environment variables over the sandbox's own.
            #[schema(schema_with = environment)]
            env: Option<BTreeMap<String, String>>,
            /// User by name or number; root where absent.
            #[schema(pattern = "^[^\\x00]+$")]
            user: Option<String>,
            #[doc = $stdin_doc]
            stdin: Option<String>,
            /// All of its stdin, as base64.
            #[schema(pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
            stdin_base64: Option<String>,
            /// Seconds after which it is killed; never where absent.
            #[schema(exclusive_minimum = 0, maximum = 315_360_000_u64)]
            timeout_sec: Option<f64>,
            $($own)*
        }

        impl $name {
            /// What all bodies say of a command.
            fn shared_spec(&mut self) -> Result<ProcessSpec, ApiError> {
                let stdin = given("stdin", self.stdin.take(), self.stdin_base64.take())?;
                let cmd = std::mem::take(&mut self.cmd);
                let command = match self.args.take() {
                    None => Command::Shell(cmd),
                    Some(args) => Command::Program { program: cmd, args },
                };
                Ok(ProcessSpec {
                    cwd: self.cwd.take(),
                    env: self.env.take().unwrap_or_default(),
                    user: self.user.take(),
                    stdin: stdin.map_or($no_stdin, Stdin::Bytes),
                    timeout_ms: self.timeout_sec.map(timeout_ms).transpose()?,
                    ..ProcessSpec::new(command)
                })
            }
        }
    };
}

command_body! {
    /// A command to run to its end.
    ExecBody, such as "echo hello from $(uname -s)";
    " What it reads from stdin, as text. Nothing where absent." or else Stdin::Null;
}

impl ExecBody {
    pub(crate) fn into_spec(mut self) -> Result<ProcessSpec, ApiError> {
        self.shared_spec()
    }
}

command_body! {
    /// A process to start in the background.
    StartBody, such as "while true; do date; sleep 1; done";
    " All of its stdin, as text. Where absent, stdin stays open for `POST .../stdin`."
        or else Stdin::Piped;
    /// Runs it on a terminal of this size.
    pty: Option<TerminalSize>,
    /// How much unread output is kept, in bytes; 4 MiB where absent.
    #[schema(minimum = 4096, maximum = 67_108_864)]
    #[serde(default, deserialize_with = "whole::optional")]
    retain_bytes: Option<u32>,
    /// What happens at that bound; `drop_oldest` where absent.
    when_full: Option<Full>,
}

impl StartBody {
    pub(crate) fn into_spec(mut self) -> Result<ProcessSpec, ApiError> {
        let mut spec = self.shared_spec()?;
        spec.pty = self.pty.map(PtySize::from);
        if let Some(bytes) = self.retain_bytes {
            spec.retain_bytes = bytes;
        }
        if let Some(Full::Wait) = self.when_full {
            spec.when_full = WhenFull::Wait;
        }
        Ok(spec)
    }
}

fn timeout_ms(seconds: f64) -> Result<u64, ApiError> {
    const SECONDS_MAX: f64 = 315_360_000.0;
    if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
        return Err(ApiError::invalid_field(
            "timeout_sec",
            format!("it is {seconds}; it must be above 0 and at most {SECONDS_MAX}, or absent"),
        ));
    }
    let millis = Duration::from_secs_f64(seconds).as_millis();
    // Never 0, which would be no time at all.
    Ok(u64::try_from(millis).unwrap_or(u64::MAX).max(1))
}

/// A terminal's size in character cells.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TerminalSize {
    /// Height in lines.
    #[schema(minimum = 1, maximum = 65_535)]
    #[serde(deserialize_with = "whole::number")]
    pub(crate) rows: u16,
    /// Width in columns.
    #[schema(minimum = 1, maximum = 65_535)]
    #[serde(deserialize_with = "whole::number")]
    pub(crate) cols: u16,
}

impl From<TerminalSize> for PtySize {
    fn from(size: TerminalSize) -> Self {
        Self {
            rows: size.rows,
            cols: size.cols,
        }
    }
}

/// What happens when nobody has read more output than the log holds.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WhenFull)]
pub(crate) enum Full {
    /// The oldest output goes; readers learn how much they missed.
    DropOldest,
    /// The process waits until a reader has asked for what follows.
    Wait,
}
