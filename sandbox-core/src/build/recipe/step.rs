//! A recipe and its steps.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::quote::{Word, word};

/// What a template is made by: steps, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recipe {
    /// The steps. `START` is at most once among them, and the last.
    pub steps: Vec<Step>,
}

/// One step. Variables are replaced already, but for those in shell lines, which the shell replaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Runs a shell line to its end. It fails with any exit code but 0.
    Run {
        /// For `/bin/sh -c`. May have several lines.
        command: String,
        /// How long it may take, in seconds; the build's own bound where absent.
        #[serde(default)]
        timeout_sec: Option<u32>,
    },
    /// Sets environment variables for the steps behind it.
    Env {
        /// Names and values, in order.
        vars: Vec<(String, String)>,
    },
    /// Sets the working directory of the steps behind it, which is made where it is missing.
    Workdir {
        /// As it was written. A relative one is joined onto the one before; see
        /// [`Scope::workdir`](super::Scope::workdir).
        path: String,
    },
    /// Sets the user of the steps behind it.
    User {
        /// By name or number.
        name: String,
    },
    /// Copies files of the uploaded context into the template. They are root's where `owner` is
    /// absent, whoever the user of the steps is.
    Copy {
        /// Paths in the context, which may have the wildcards `*`, `?` and `[…]`.
        sources: Vec<String>,
        /// Where to. Relative ones are joined onto the working directory; see
        /// `context::Destination`.
        dest: String,
        /// Permission bits of all that is copied, such as `0o755`; those of the context where
        /// absent.
        #[serde(default)]
        mode: Option<u32>,
        /// Owner of all that is copied, for `chown`: `user`, `user:group` or `:group`, by name or
        /// number.
        #[serde(default)]
        owner: Option<String>,
    },
    /// Starts a process that is to run when the snapshot is taken.
    Start {
        /// For `/bin/sh -c`.
        command: String,
    },
}

impl Step {
    /// The words that begin a step in a list, written exactly so.
    pub const INSTRUCTIONS: [&str; 6] = ["RUN", "ENV", "WORKDIR", "USER", "COPY", "START"];

    /// The step's instruction.
    #[must_use]
    pub const fn instruction(&self) -> &'static str {
        match self {
            Self::Run { .. } => "RUN",
            Self::Env { .. } => "ENV",
            Self::Workdir { .. } => "WORKDIR",
            Self::User { .. } => "USER",
            Self::Copy { .. } => "COPY",
            Self::Start { .. } => "START",
        }
    }

    /// Whether it changes the disk, so that its result is worth keeping. What `WORKDIR` makes is made
    /// again at no cost; what `START` writes belongs to the process that it starts.
    #[must_use]
    pub const fn changes_disk(&self) -> bool {
        matches!(self, Self::Run { .. } | Self::Copy { .. })
    }

    /// The step as an entry of a list, which parses back to the very same step. A shell command
    /// without more is just that. May have several lines; [`Display`](fmt::Display) has one.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Run {
                command,
                timeout_sec: None,
            } => {
                let first = command.split(super::is_blank).next().unwrap_or("");
                if Self::INSTRUCTIONS.contains(&first) {
                    format!("RUN {command}")
                } else {
                    command.clone()
                }
            }
            Self::Run {
                command,
                timeout_sec: Some(seconds),
            } => format!("RUN --timeout={seconds} {}", as_line(command)),
            Self::Env { vars } => {
                let mut text = String::from("ENV");
                for (name, value) in vars {
                    text.push_str(&format!(" {name}={}", word(value, Word::Last)));
                }
                text
            }
            Self::Workdir { path } => format!("WORKDIR {}", word(path, Word::Last)),
            Self::User { name } => format!("USER {}", word(name, Word::Last)),
            Self::Copy {
                sources,
                dest,
                mode,
                owner,
            } => {
                let mut text = String::from("COPY");
                if let Some(owner) = owner {
                    text.push_str(&format!(" --chown={}", word(owner, Word::Last)));
                }
                if let Some(mode) = mode {
                    text.push_str(&format!(" --chmod={mode:03o}"));
                }
                for (i, source) in sources.iter().enumerate() {
                    let place = if i == 0 { Word::First } else { Word::Last };
                    text.push_str(&format!(" {}", word(source, place)));
                }
                text.push_str(&format!(" {}", word(dest, Word::Last)));
                text
            }
            Self::Start { command } => format!("START {}", as_line(command)),
        }
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Run { command, .. } | Self::Start { command } => command.len(),
            Self::Env { vars } => vars
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum(),
            Self::Workdir { path } => path.len(),
            Self::User { name } => name.len(),
            Self::Copy {
                sources,
                dest,
                owner,
                ..
            } => {
                let owner = owner.as_ref().map_or(0, String::len);
                sources.iter().map(String::len).sum::<usize>() + dest.len() + owner
            }
        }
    }
}

/// A shell line behind an instruction: after `--` nothing in it is taken for an option or an array.
fn as_line(command: &str) -> String {
    if command.starts_with("--") || command.starts_with('[') {
        format!("-- {command}")
    } else {
        command.to_owned()
    }
}

/// The step in one line, for people: [`Step::text`] with line ends and other control characters
/// written as escapes.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.text().chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
