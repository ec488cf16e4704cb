//! A recipe's characters, each with its place, and the lines that a text is made of.

use std::collections::VecDeque;

use super::is_blank;

/// A place in a text or entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pos {
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

impl Pos {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// A character and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ch {
    pub(super) c: char,
    pub(super) at: Pos,
}

/// Characters that belong to one instruction, read from front to back.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [Ch],
    /// What comes behind the last character.
    end: Pos,
    /// What takes the meaning from the character behind it.
    pub(super) escape: char,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(chars: &'a [Ch], escape: char) -> Self {
        let end = chars.last().map_or(Pos::START, |last| match last.c {
            '\n' => Pos {
                line: last.at.line + 1,
                column: 1,
            },
            _ => Pos {
                column: last.at.column + 1,
                ..last.at
            },
        });
        Self {
            rest: chars,
            end,
            escape,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.first().map(|ch| ch.c)
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.c)
    }

    /// Where the next character stands.
    pub(super) fn pos(&self) -> Pos {
        self.rest.first().map_or(self.end, |ch| ch.at)
    }

    /// Where the character stands that is this many further on.
    pub(super) fn pos_of(&self, ahead: usize) -> Pos {
        self.rest.get(ahead).map_or(self.end, |ch| ch.at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn starts_with(&self, text: &str) -> bool {
        let mut rest = self.rest.iter();
        text.chars()
            .all(|c| rest.next().is_some_and(|ch| ch.c == c))
    }

    /// Takes the text away, if it stands here.
    pub(super) fn take_text(&mut self, text: &str) -> bool {
        let found = self.starts_with(text);
        if found {
            self.rest = &self.rest[text.chars().count()..];
        }
        found
    }

    pub(super) fn skip_blanks(&mut self) {
        let blanks = self.rest.iter().take_while(|ch| is_blank(ch.c)).count();
        self.rest = &self.rest[blanks..];
    }

    /// As [`Self::skip_blanks`], with lines that go on in the next.
    pub(super) fn skip_between_words(&mut self) {
        self.skip_blanks();
        while let [escape, line_end, rest @ ..] = self.rest
            && escape.c == self.escape
            && line_end.c == '\n'
        {
            self.rest = rest;
            self.skip_blanks();
        }
    }

    /// Takes blanks away from the end.
    pub(super) fn trim_end(&mut self) {
        while let [rest @ .., last] = self.rest
            && is_blank(last.c)
        {
            self.rest = rest;
            self.end = last.at;
        }
    }

    /// Takes what stands before the next blank, as it is.
    pub(super) fn take_raw_word(&mut self) -> String {
        let length = self.rest.iter().take_while(|ch| !is_blank(ch.c)).count();
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        word.iter().map(|ch| ch.c).collect()
    }

    /// All that is left, as it is.
    pub(super) fn text(&self) -> String {
        self.rest.iter().map(|ch| ch.c).collect()
    }
}

/// The characters of an entry.
pub(super) fn chars(text: &str) -> Vec<Ch> {
    let mut at = Pos::START;
    text.chars()
        .map(|c| {
            let ch = Ch { c, at };
            if c == '\n' {
                at = Pos {
                    line: at.line + 1,
                    column: 1,
                };
            } else {
                at.column += 1;
            }
            ch
        })
        .collect()
}

/// The lines of a text, as far as they say something: comments and empty lines left out, each with
/// those that it goes on in.
pub(super) struct LogicalLines<'a> {
    lines: VecDeque<(u32, &'a str)>,
    pub(super) escape: char,
}

impl<'a> LogicalLines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let lines = text.split('\n').zip(1..);
        Self {
            lines: lines
                .map(|(line, number)| (number, line.strip_suffix('\r').unwrap_or(line)))
                .collect(),
            escape: '\\',
        }
    }

    /// Takes a parser directive, `# name=value`, off the top.
    pub(super) fn next_directive(&mut self) -> Option<(String, &'a str, Pos)> {
        let (line, text) = *self.lines.front()?;
        let (before, behind) = text.split_once('=')?;
        let name = before.trim_matches(is_blank).strip_prefix('#')?;
        let name = name.trim_matches(is_blank).to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        self.lines.pop_front();
        let value = behind.trim_start_matches(is_blank);
        let column = text[..text.len() - value.len()].chars().count() + 1;
        let column = u32::try_from(column).unwrap_or(u32::MAX);
        let value = value.trim_end_matches(is_blank);
        Some((name, value, Pos { line, column }))
    }

    /// The next one: its characters, without the escape characters and line ends between its lines.
    pub(super) fn next_line(&mut self) -> Option<Vec<Ch>> {
        let mut chars: Vec<Ch> = Vec::new();
        while let Some((line, text)) = self.lines.pop_front() {
            let trimmed = text.trim_matches(is_blank);
            // Within an instruction too, so that each of its lines can have a comment above.
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let (text, goes_on) = self.without_continuation(text);
            let first = chars.is_empty();
            let columns = text.chars().zip(1..).map(|(c, column)| Ch {
                c,
                at: Pos { line, column },
            });
            chars.extend(columns.skip_while(|ch| first && is_blank(ch.c)));
            if !goes_on {
                break;
            }
        }
        (!chars.is_empty()).then_some(chars)
    }

    /// A line goes on where the escape character, but not two of them, stands at its end.
    fn without_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let body = text
            .trim_end_matches([' ', '\t'])
            .strip_suffix(self.escape)
            .filter(|body| !body.ends_with(self.escape));
        body.map_or((text, false), |body| (body, true))
    }
}
