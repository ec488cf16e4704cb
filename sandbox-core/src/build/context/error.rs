//! What is wrong with a context, or with what a step wants of it.

use super::{CONTEXT_ENTRIES_MAX, CONTEXT_UNPACKED_MAX_BYTES};
use crate::build::CONTEXT_MAX_BYTES;

/// Why an upload can't be a build context. Nothing of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The upload is too large.
    #[error(
        "the context is {got} bytes as uploaded; at most {CONTEXT_MAX_BYTES} are allowed. Leave out what \
         no COPY takes, such as with a .dockerignore"
    )]
    TooLarge {
        /// How large it is, in bytes.
        got: usize,
    },
    /// It is too large when it is unpacked.
    #[error(
        "the context unpacks to more than {CONTEXT_UNPACKED_MAX_BYTES} bytes. Leave out what no COPY \
         takes, such as with a .dockerignore"
    )]
    UnpackedTooLarge,
    /// It has too many entries.
    #[error(
        "the context has more than {CONTEXT_ENTRIES_MAX} files, folders and links. Leave out what no \
         COPY takes, such as with a .dockerignore"
    )]
    TooManyEntries,
    /// It is compressed by something else than gzip.
    #[error("the context is compressed with {format}; send a tar archive, plain or with gzip")]
    Compression {
        /// By what.
        format: &'static str,
    },
    /// Its gzip stream is broken.
    #[error("the context's gzip stream is damaged or cut off ({reason}); send it again")]
    BadGzip {
        /// What the decoder says.
        reason: String,
    },
    /// It is no tar archive, or not a whole one.
    #[error(
        "the context is no tar archive, or damaged or cut off{}; send a tar archive, plain or with gzip",
        behind(.after)
    )]
    BadArchive {
        /// The last name that could be read.
        after: Option<String>,
    },
    /// An entry's name that can't be a path inside the context.
    #[error("the context's entry `{name}` {problem}")]
    BadName {
        /// The name, as far as it can be shown.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An entry that is neither a file nor a folder nor a link.
    #[error(
        "the context's entry `{name}` is a {kind}; leave it out, and make it by RUN if you need it"
    )]
    Kind {
        /// Its name.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// A hard link to nothing.
    #[error(
        "the context's entry `{name}` is a hard link to `{target}`, which is no file before it"
    )]
    HardLink {
        /// Its name.
        name: String,
        /// What it links to.
        target: String,
    },
    /// An entry below something that is no folder, or in the place of a folder that holds entries.
    #[error(
        "the context's entry `{name}` is in the way of others: one path is a folder and something else"
    )]
    Clash {
        /// Its name.
        name: String,
    },
}

fn behind(after: &Option<String>) -> String {
    after
        .as_ref()
        .map_or_else(String::new, |name| format!(" behind `{name}`"))
}

/// Why a COPY can't be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// There is no such source.
    #[error(
        "the context has no `{source_path}`; is it left out by a .dockerignore, or the path not one inside the context?"
    )]
    Missing {
        /// The source, as the step says it.
        source_path: String,
    },
    /// No file's path is like this.
    #[error("nothing in the context matches `{pattern}`; a `*` finds names of one folder only")]
    NoMatch {
        /// The source, as the step says it.
        pattern: String,
    },
    /// A link that leads to itself.
    #[error("the context's `{source_path}` leads through too many symbolic links")]
    LinkLoop {
        /// The source, as the step says it.
        source_path: String,
    },
    /// Several things for one name.
    #[error(
        "`{source_path}` and more would be copied to one name; write the destination with a slash at its end"
    )]
    NeedsDirectory {
        /// The source, as the step says it.
        source_path: String,
    },
    /// A folder and something else would come to lie at one path.
    #[error(
        "a folder and something else would both be copied to `{path}`; copy them to different folders"
    )]
    Clash {
        /// Where, in the guest.
        path: String,
    },
    /// It takes the same things again and again.
    #[error("the sources have more in them than twice the whole context; name each once")]
    TooMuch,
    /// A path that the guest can't hold.
    #[error("copying would make a path of more than {max} bytes: `{path}`")]
    PathTooLong {
        /// The start of it.
        path: String,
        /// The bound, in bytes.
        max: usize,
    },
}

/// As much of a name as belongs in a message.
pub(super) fn shown(name: &[u8]) -> String {
    const SHOWN: usize = 120;
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
