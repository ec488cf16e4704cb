//! What is wrong with a recipe, where, and what to do about it.

use std::fmt;

use super::source::Pos;

/// Why a recipe can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeError {
    /// Which entry of a list, from 1; absent where a text was read.
    pub entry: Option<usize>,
    /// Which line of the text or entry, from 1.
    pub line: u32,
    /// Which character of the line, from 1.
    pub column: u32,
    /// What is wrong, and what to do.
    pub problem: RecipeProblem,
    /// The line, or the part of it around the column.
    excerpt: String,
    /// Characters of the excerpt before the column.
    indent: usize,
}

impl std::error::Error for RecipeError {}

/// The place and the problem in one line, such as ``line 3, column 5: `FOO` is no instruction…``.
impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(f, "entry {entry}, ")?,
            None => write!(f, "line {}, ", self.line)?,
        }
        if self.entry.is_some() && self.line > 1 {
            write!(f, "line {}, ", self.line)?;
        }
        write!(f, "column {}: {}", self.column, self.problem)
    }
}

impl RecipeError {
    /// Characters shown of a long line before the column, and behind it.
    const SHOWN: usize = 60;

    /// An error somewhere in `source`, which is the whole text or the whole entry.
    pub(super) fn new(entry: Option<usize>, source: &str, fault: Fault) -> Self {
        let Fault {
            at: Pos { line, column },
            problem,
        } = fault;
        let text = source.split('\n').nth(line as usize - 1).unwrap_or("");
        let before = column as usize - 1;
        let skipped = before.saturating_sub(Self::SHOWN);
        let mut excerpt = String::new();
        if skipped > 0 {
            excerpt.push('…');
        }
        // What has no width, or moves the cursor, would move the caret away from what it points at.
        let visible = |c: char| if c.is_control() { ' ' } else { c };
        let mut rest = text.trim_end_matches('\r').chars().skip(skipped);
        excerpt.extend(rest.by_ref().take(2 * Self::SHOWN).map(visible));
        if rest.next().is_some() {
            excerpt.push('…');
        }
        Self {
            entry,
            line,
            column,
            problem,
            excerpt,
            indent: before - skipped + usize::from(skipped > 0),
        }
    }

    /// Three lines for a terminal: what is wrong, the line of the recipe, and a caret under the column.
    #[must_use]
    pub fn explained(&self) -> String {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(self.indent);
        let excerpt = &self.excerpt;
        format!("{self}\n {number} | {excerpt}\n {margin} | {indent}^")
    }
}

/// A problem and where it is in the text or entry at hand.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Pos,
    pub(super) problem: RecipeProblem,
}

impl Fault {
    pub(super) fn at<T>(at: Pos, problem: RecipeProblem) -> Result<T, Self> {
        Err(Self { at, problem })
    }
}

/// As much of a recipe's own words as belongs in a message, in one line.
pub(super) fn shown(text: &str) -> String {
    const SHOWN: usize = 40;
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

/// What is wrong with a recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeProblem {
    /// The whole of it is too long.
    #[error("the recipe is longer than {max} bytes; put what is long into files and COPY them")]
    TooLong {
        /// The bound, in bytes.
        max: usize,
    },
    /// It has too many steps.
    #[error(
        "the recipe has more than {max} steps; join commands by `&&`, or COPY a script and RUN it"
    )]
    TooManySteps {
        /// The bound.
        max: usize,
    },
    /// One step is too long.
    #[error("this step is longer than {max} bytes; COPY a script and RUN it")]
    StepTooLong {
        /// The bound, in bytes.
        max: usize,
    },
    /// All variables together are too many or too long.
    #[error(
        "with this, the environment is more than {vars_max} variables or {bytes_max} bytes; \
         put what is long into a file"
    )]
    EnvironmentTooLarge {
        /// The most variables.
        vars_max: usize,
        /// The most bytes in all names and values.
        bytes_max: usize,
    },
    /// An entry of a list has nothing in it.
    #[error("this entry is empty; leave it out, or write a shell command")]
    EmptyEntry,
    /// Linux ends texts at such a byte.
    #[error("there is a NUL byte here, which no command, path or variable can hold; remove it")]
    NulByte,
    /// Something is missing behind the instruction, or too much.
    #[error("this is not how {instruction} is written; write it like `{example}`")]
    Malformed {
        /// Which instruction.
        instruction: &'static str,
        /// How a whole one looks.
        example: &'static str,
    },
    /// A line that begins with no known word.
    #[error(
        "`{word}` is no instruction; a shell command begins with RUN, and what goes on from the line \
         before needs a `\\` at that line's end"
    )]
    UnknownInstruction {
        /// The word.
        word: String,
    },
    /// An instruction that can't be done here.
    #[error("{what} is not supported; {instead}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What to do.
        instead: &'static str,
    },
    /// An option that the instruction does not have.
    #[error("{instruction} has no option `{option}`; {known}")]
    UnknownOption {
        /// Which instruction.
        instruction: &'static str,
        /// The option.
        option: String,
        /// What to do, such as the options that it has.
        known: &'static str,
    },
    /// An option without a value.
    #[error("`{option}` needs a value, such as `{example}`")]
    OptionWithoutValue {
        /// The option.
        option: &'static str,
        /// How a whole one looks.
        example: &'static str,
    },
    /// A duration that can't be read, or is out of bounds.
    #[error(
        "`{text}` is no duration that can be used here; write whole seconds from {min} to {max}, \
         such as `30`, `30s` or `5m`"
    )]
    BadDuration {
        /// What was given.
        text: String,
        /// The least, in seconds.
        min: u32,
        /// The most, in seconds.
        max: u32,
    },
    /// A number that can't be read, or is out of bounds.
    #[error("`{text}` can't be used here; write a number from {min} to {max}")]
    BadNumber {
        /// What was given.
        text: String,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A quote that has no end.
    #[error(
        "this {quote} is never closed; close it, or write `\\{quote}` for the character itself"
    )]
    UnclosedQuote {
        /// Which.
        quote: char,
    },
    /// `${` that can't be read.
    #[error(
        "this is no variable that can be read; write `${{NAME}}`, `${{NAME:-default}}` or \
         `${{NAME:+other}}`, or `\\$` for a dollar sign"
    )]
    BadVariable,
    /// A variable that nothing defines.
    #[error(
        "no ENV or ARG above defines `{name}`, and variables are replaced here before there is a shell; \
         define it, give a default as in `${{{name}:-default}}`, or write `\\$` for a dollar sign"
    )]
    UndefinedVariable {
        /// Its name.
        name: String,
    },
    /// `${NAME:?message}` of a variable that nothing defines.
    #[error("this recipe wants `{name}` to be defined by an ENV or ARG above: {message}")]
    RequiredVariable {
        /// Its name.
        name: String,
        /// What the recipe says about it.
        message: String,
    },
    /// What can't name a variable.
    #[error(
        "`{name}` can't name a variable; names have no blanks, quotes, `=`, `$` or `\\`, and are 1 to \
         {max} bytes long"
    )]
    BadVariableName {
        /// What was given.
        name: String,
        /// The bound, in bytes.
        max: usize,
    },
    /// A word of an ENV that sets nothing.
    #[error("`{word}` has no `=`; write `NAME=value`, and quotes around a value that has blanks")]
    NoEquals {
        /// The word.
        word: String,
    },
    /// What looks like a JSON array and is none.
    #[error(
        "this looks like a JSON array and is none: {reason}; strings in it have double quotes. For a \
         shell command write a blank behind the `[`"
    )]
    NotJson {
        /// What the parser says.
        reason: String,
    },
    /// A JSON array of other things than strings.
    #[error("a JSON array here holds strings only; put double quotes around each element")]
    JsonNotStrings,
    /// Where only a JSON array can stand.
    #[error("{instruction} takes a JSON array only; write it like `{example}`")]
    JsonOnly {
        /// Which instruction.
        instruction: &'static str,
        /// How a whole one looks.
        example: &'static str,
    },
    /// Permission bits that can't be read.
    #[error("`{text}` is no mode; write it in octal digits, such as `755` or `0644`")]
    BadMode {
        /// What was given.
        text: String,
    },
    /// An owner that can't be read.
    #[error("`{text}` is no owner; write `user`, `user:group` or `:group`, by name or number")]
    BadOwner {
        /// What was given.
        text: String,
    },
    /// A user that can't be read.
    #[error("`{text}` is no user; write one name or number, without blanks")]
    BadUser {
        /// What was given.
        text: String,
    },
    /// A user with a group.
    #[error("a user has the groups that it has in the template; write `USER {user}`, without `:`")]
    UserWithGroup {
        /// The user alone.
        user: String,
    },
    /// A path that Linux can't hold.
    #[error("a path here is 1 to {max} bytes long")]
    BadPath {
        /// The bound, in bytes.
        max: usize,
    },
    /// A source outside the context.
    #[error(
        "`{source_path}` leads out of the uploaded context; sources are paths inside it, without `..`"
    )]
    SourceOutside {
        /// The source.
        source_path: String,
    },
    /// More sources than one step may have.
    #[error(
        "this COPY has more than {max} sources; COPY the folder that they are in, or use wildcards"
    )]
    TooManySources {
        /// The bound.
        max: usize,
    },
    /// Several sources for one name.
    #[error(
        "several sources can only go into a directory; write `{dest}/`, with a slash at its end"
    )]
    NotADirectory {
        /// The destination.
        dest: String,
    },
    /// A second process to start.
    #[error(
        "there is a START already; start several processes by one script, or in the background of \
         one shell command"
    )]
    SecondStart,
    /// A step behind the last.
    #[error(
        "START comes last, since the snapshot is taken while its process runs; move it to the end"
    )]
    StartNotLast,
    /// A here-document.
    #[error(
        "here-documents are not read in a recipe's text; COPY a file, write it by `printf`, or give the \
         recipe as a list, whose entries may have several lines"
    )]
    Heredoc,
    /// FROM behind a step.
    #[error("FROM comes first, before all steps, and names the template to begin with; move it up")]
    FromNotFirst,
    /// A second FROM.
    #[error(
        "builds have one stage, and there is a FROM already; build the other stage as a template of its \
         own and begin FROM that"
    )]
    SecondFrom,
    /// FROM something that is no template.
    #[error(
        "`{name}` can't be a template's name, which is 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`; an \
         OCI image is imported as a template first"
    )]
    BadBase {
        /// What was given.
        name: String,
    },
    /// ARG of which nobody gives the value.
    #[error("a build takes no arguments; give a default, as in `ARG {name}=value`")]
    ArgWithoutValue {
        /// Its name.
        name: String,
    },
    /// Another escape character than the two that there are.
    #[error("an escape character is `\\` or `` ` ``")]
    BadEscape,
}
