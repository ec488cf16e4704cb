//! Words of an instruction: blanks between them, quotes, escapes and variables.

use std::collections::BTreeMap;

use super::{
    STEP_BYTES_MAX,
    error::{Fault, RecipeProblem, shown},
    is_blank,
    source::{Cursor, Pos},
};

/// A word as it is meant, and where it stood.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) at: Pos,
}

/// Variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// How deep defaults may hold variables with defaults.
const DEPTH_MAX: usize = 16;

/// Where a word ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Blank,
    Brace,
    End,
}

/// The words that are left.
pub(super) fn words(cursor: &mut Cursor<'_>, vars: &Variables) -> Result<Vec<Text>, Fault> {
    let mut words = Vec::new();
    let mut bytes = 0;
    while let Some(word) = next_word(cursor, vars)? {
        bytes += word.text.len();
        if bytes > STEP_BYTES_MAX {
            return too_long(word.at);
        }
        words.push(word);
    }
    Ok(words)
}

/// The next word, if there is one.
pub(super) fn next_word(cursor: &mut Cursor<'_>, vars: &Variables) -> Result<Option<Text>, Fault> {
    cursor.skip_between_words();
    if cursor.is_empty() {
        return Ok(None);
    }
    let at = cursor.pos();
    let text = Lexer { cursor, vars }.read(Until::Blank, 0)?;
    Ok(Some(Text { text, at }))
}

/// All that is left as one word, blanks within it included.
pub(super) fn rest(cursor: &mut Cursor<'_>, vars: &Variables) -> Result<Text, Fault> {
    cursor.skip_blanks();
    cursor.trim_end();
    let at = cursor.pos();
    let text = Lexer { cursor, vars }.read(Until::End, 0)?;
    Ok(Text { text, at })
}

/// Variables alone, in a text that is quoted otherwise: `\$` is a dollar sign.
pub(super) fn substitute(text: &str, at: Pos, vars: &Variables) -> Result<String, Fault> {
    let chars = super::source::chars(text);
    let mut cursor = Cursor::new(&chars, '\\');
    let mut out = String::new();
    let mut lexer = Lexer {
        cursor: &mut cursor,
        vars,
    };
    while let Some(c) = lexer.cursor.peek() {
        if lexer.cursor.take_text(r"\$") {
            out.push('$');
        } else if c == '$' {
            lexer
                .variable(&mut out, 0)
                .map_err(|fault| Fault { at, ..fault })?;
        } else {
            lexer.cursor.next();
            out.push(c);
        }
        if out.len() > STEP_BYTES_MAX {
            return too_long(at);
        }
    }
    Ok(out)
}

fn too_long<T>(at: Pos) -> Result<T, Fault> {
    let max = STEP_BYTES_MAX;
    Fault::at(at, RecipeProblem::StepTooLong { max })
}

struct Lexer<'l, 'a> {
    cursor: &'l mut Cursor<'a>,
    vars: &'l Variables,
}

impl Lexer<'_, '_> {
    fn read(&mut self, until: Until, depth: usize) -> Result<String, Fault> {
        let mut out = String::new();
        while let Some(c) = self.cursor.peek() {
            match c {
                c if until == Until::Blank && is_blank(c) => break,
                '}' if until == Until::Brace => break,
                '\'' => self.single_quoted(&mut out)?,
                '"' => self.double_quoted(&mut out, depth)?,
                '$' => self.variable(&mut out, depth)?,
                c if c == self.cursor.escape => self.escaped(&mut out, |_| true),
                c => {
                    self.cursor.next();
                    out.push(c);
                }
            }
            if out.len() > STEP_BYTES_MAX {
                return too_long(self.cursor.pos());
            }
        }
        Ok(out)
    }

    /// The escape character and what it stands before. It stands for itself before what can do
    /// without it, and at the end.
    fn escaped(&mut self, out: &mut String, takes_effect: impl Fn(char) -> bool) {
        let escape = self.cursor.next();
        match self.cursor.peek() {
            // A line that goes on in the next.
            Some('\n') => {
                self.cursor.next();
            }
            Some(c) if takes_effect(c) => {
                self.cursor.next();
                out.push(c);
            }
            _ => out.extend(escape),
        }
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<(), Fault> {
        let at = self.cursor.pos();
        self.cursor.next();
        loop {
            match self.cursor.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => return Fault::at(at, RecipeProblem::UnclosedQuote { quote: '\'' }),
            }
        }
    }

    fn double_quoted(&mut self, out: &mut String, depth: usize) -> Result<(), Fault> {
        let at = self.cursor.pos();
        let escape = self.cursor.escape;
        self.cursor.next();
        loop {
            match self.cursor.peek() {
                Some('"') => {
                    self.cursor.next();
                    return Ok(());
                }
                Some('$') => self.variable(out, depth)?,
                Some(c) if c == escape => {
                    self.escaped(out, |c| c == '"' || c == '$' || c == escape);
                }
                Some(c) => {
                    self.cursor.next();
                    out.push(c);
                }
                None => return Fault::at(at, RecipeProblem::UnclosedQuote { quote: '"' }),
            }
            if out.len() > STEP_BYTES_MAX {
                return too_long(at);
            }
        }
    }

    /// `$NAME` or `${NAME…}`. A dollar sign before anything else is just that.
    fn variable(&mut self, out: &mut String, depth: usize) -> Result<(), Fault> {
        let at = self.cursor.pos();
        self.cursor.next();
        let braced = self.cursor.take_text("{");
        let name = self.name();
        if !braced && name.is_empty() {
            out.push('$');
            return Ok(());
        }
        let value = self.vars.get(&name);
        if !braced {
            let value = value.map_or_else(|| undefined(at, &name), Ok)?;
            out.push_str(value);
            return Ok(());
        }
        let bad = || Fault {
            at,
            problem: RecipeProblem::BadVariable,
        };
        if name.is_empty() || depth >= DEPTH_MAX {
            return Err(bad());
        }
        // With a colon, an empty value is none.
        let value = if self.cursor.take_text(":") {
            if self.cursor.peek() == Some('}') {
                return Err(bad());
            }
            value.filter(|value| !value.is_empty())
        } else if self.cursor.take_text("}") {
            let value = value.map_or_else(|| undefined(at, &name), Ok)?;
            out.push_str(value);
            return Ok(());
        } else {
            value
        };
        let operator = self.cursor.next();
        // A variable in a default that is not used need not be defined.
        let word = match (operator, value) {
            (Some('-' | '?'), Some(_)) | (Some('+'), None) => self.skip(depth + 1)?,
            (Some('-' | '+' | '?'), _) => self.read(Until::Brace, depth + 1)?,
            _ => return Err(bad()),
        };
        if !self.cursor.take_text("}") {
            return Err(bad());
        }
        match (operator, value) {
            (Some('-'), None) | (Some('+'), Some(_)) => out.push_str(&word),
            (Some('-' | '?'), Some(value)) => out.push_str(value),
            (Some('?'), None) => {
                let (name, message) = (shown(&name), shown(&word));
                return Fault::at(at, RecipeProblem::RequiredVariable { name, message });
            }
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.cursor.peek()
            && (c == '_' || c.is_ascii_alphabetic() || (c.is_ascii_digit() && !name.is_empty()))
        {
            self.cursor.next();
            name.push(c);
        }
        name
    }

    /// What [`Self::read`] would take up to a brace, without any variable of it being asked for.
    fn skip(&mut self, depth: usize) -> Result<String, Fault> {
        let mut unused = String::new();
        let mut open = 0;
        while let Some(c) = self.cursor.peek() {
            match c {
                '}' if open == 0 => break,
                '\'' => self.single_quoted(&mut unused)?,
                c if c == self.cursor.escape => self.escaped(&mut unused, |_| true),
                _ => {
                    if self.cursor.take_text("${") {
                        open += 1;
                        continue;
                    }
                    self.cursor.next();
                    if c == '}' {
                        open -= 1;
                    }
                }
            }
            if depth + open > DEPTH_MAX {
                return Fault::at(self.cursor.pos(), RecipeProblem::BadVariable);
            }
        }
        Ok(String::new())
    }
}

fn undefined<T>(at: Pos, name: &str) -> Result<T, Fault> {
    let name = shown(name);
    Fault::at(at, RecipeProblem::UndefinedVariable { name })
}
