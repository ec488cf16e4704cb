//! Recipes: what a template is built by, and the one parser that reads them. Nothing here runs
//! anything, and a recipe that was read can be run as it is.
//!
//! A recipe comes as a *list*, whose entries are shell commands, or instructions where the first word
//! is one of `RUN`, `ENV`, `WORKDIR`, `USER`, `COPY` and `START` in capitals; or as a *text*, which is
//! a subset of a Dockerfile. In a text every line is an instruction, in any case of letters; `#`
//! begins a comment line, a `\` at a line's end goes on in the next. Entries of a list may have several
//! lines, and here-documents in them.
//!
//! # In lists and texts
//!
//! | instruction | what it does |
//! |---|---|
//! | `RUN [--timeout=30] command` | runs a shell line, for at most 30 s (`30s`, `5m`, `1h30m`) |
//! | `ENV NAME=value N="two words"` | sets variables for the steps behind it; also `ENV NAME value` |
//! | `WORKDIR path` | sets the working directory; a relative one is joined onto the one before, at first `/` |
//! | `USER name` | sets the user, by name or number. A group is refused: users have the groups that they have |
//! | `COPY [--chown=u:g] [--chmod=755] source… dest` | copies from the uploaded context; see `context` |
//! | `START command` | starts a process that is to run in the snapshot; once, and last |
//!
//! `RUN` and `START` also take a JSON array, a program and its arguments, which becomes a shell line
//! of quoted words, as `COPY` does for names with blanks. Behind `--` a command is taken as it is. An
//! escape character before a line's end within an instruction of a list goes on in the next line too.
//!
//! `$NAME`, `${NAME}`, `${NAME-x}`, `${NAME:-x}`, `${NAME+x}`, `${NAME:+x}` and `${NAME:?message}` are
//! replaced in all arguments but shell lines, where the shell does it. Variables are those that an
//! `ENV` (or `ARG`) above defines, and `PATH`, which is what processes have by default. Any other is an
//! error. Quotes and `\` are taken as in a shell: nothing is replaced within `'…'`.
//!
//! # In texts only
//!
//! | instruction | what becomes of it |
//! |---|---|
//! | `FROM template [AS x]` | names the template to begin with; once, and first. A second stage, `--platform`, and names with `:` or `/` are refused |
//! | `ARG NAME=value` | an `ENV` that yields to one that is there; above `FROM` it serves `FROM`, and a bare `ARG NAME` below. Without any value it is refused |
//! | `CMD`, `ENTRYPOINT` | together a `START` behind all steps; the last of each counts, and an array of `ENTRYPOINT` has that of `CMD` behind it |
//! | `HEALTHCHECK [--interval= --timeout= --start-period= --retries=] CMD command`, `HEALTHCHECK NONE` | the build's healthcheck, in whole seconds; the last counts. `--start-interval` says nothing here |
//! | `SHELL ["/bin/bash", "-c"]` | takes the shell lines behind it |
//! | `ADD` | `COPY`; addresses, archives (by name) and wildcards are refused, since `COPY` does not do what `ADD` would |
//! | `LABEL`, `EXPOSE`, `MAINTAINER`, `VOLUME`, `STOPSIGNAL` | nothing: a sandbox has all its ports and keeps all of its disk |
//! | `ONBUILD`, `COPY --from`, here-documents | refused, with what to do instead |
//! | `RUN --mount=type=cache…`, `RUN --network=default`, `COPY --link` | the option says nothing here; other mounts and networks are refused |
//! | `# escape=` followed by a backtick | the escape character; other directives say nothing |

mod error;
mod heredoc;
mod json;
mod key;
#[cfg(feature = "engine")]
mod layers;
mod list;
mod options;
mod quote;
mod reader;
mod scope;
mod source;
mod step;
#[cfg(test)]
mod tests;
mod text;
mod words;

pub use error::{RecipeError, RecipeProblem};
pub use key::{BadHash, ContentDigest, LayerKey};
#[cfg(feature = "engine")]
pub use layers::{MissingDigest, layers};
pub use scope::{Scope, scope_before};
pub use step::{Recipe, Step};
pub use text::{HealthcheckText, RecipeText};

/// The most steps.
pub const STEPS_MAX: usize = 256;
/// The most that one step holds, in bytes.
pub const STEP_BYTES_MAX: usize = 64 * 1024;
/// The most that all steps hold, and the longest text, in bytes.
pub const RECIPE_BYTES_MAX: usize = 256 * 1024;
/// The most sources of one `COPY`.
pub const SOURCES_MAX: usize = 256;
/// The longest time limit of a step, in seconds: a day.
pub const TIMEOUT_SEC_MAX: u32 = 24 * 3600;
/// The most variables that a recipe sets.
pub const ENV_MAX: usize = 256;
/// The most bytes in all names and values that a recipe sets.
pub const ENV_BYTES_MAX: usize = 64 * 1024;
/// The longest name of a variable, user or owner, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// What separates words.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}
