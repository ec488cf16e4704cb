//! Writing words so that they are read back as they were.

use std::borrow::Cow;

/// Where a word stands among an instruction's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Where an option or an array could stand too.
    First,
    /// Behind the first one, or where nothing else can stand.
    Last,
}

/// A word of an instruction's arguments.
pub(super) fn word(text: &str, place: Word) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+,=~*?[]{}!^".contains(c);
    let begins_otherwise =
        place == Word::First && (text.starts_with("--") || text.starts_with('['));
    quoted(text, !begins_otherwise && text.chars().all(plain))
}

/// A word for the shell that means itself and nothing else.
pub(super) fn shell_word(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    quoted(text, text.chars().all(plain))
}

fn quoted(text: &str, plain: bool) -> Cow<'_, str> {
    if plain && !text.is_empty() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

/// A shell line that runs a program with its arguments.
pub(super) fn shell_line<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<_> = words.iter().map(|word| shell_word(word.as_ref())).collect();
    words.join(" ")
}
