//! Options of instructions, such as `--timeout=30`, and their values.

use super::{
    error::{Fault, RecipeProblem, shown},
    is_blank,
    source::{Cursor, Pos},
    words::{Text, Variables, next_word},
};

/// An option as it stands there.
#[derive(Debug)]
pub(super) struct Given {
    /// With its two hyphens.
    pub(super) name: String,
    value: Option<String>,
    pub(super) at: Pos,
}

/// What stands before an instruction's arguments.
#[derive(Debug)]
pub(super) enum Next {
    Option(Given),
    /// `--`: what follows is none, whatever it begins with.
    Mark,
    Arguments,
}

pub(super) fn next_option(cursor: &mut Cursor<'_>, vars: &Variables) -> Result<Next, Fault> {
    let mut ahead = cursor.clone();
    ahead.skip_between_words();
    let at = ahead.pos();
    if !ahead.starts_with("--") {
        cursor.skip_blanks();
        return Ok(Next::Arguments);
    }
    let Some(Text { text, .. }) = next_word(cursor, vars)? else {
        return Ok(Next::Arguments);
    };
    if text == "--" {
        cursor.skip_blanks();
        return Ok(Next::Mark);
    }
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text, None),
    };
    Ok(Next::Option(Given { name, value, at }))
}

impl Given {
    /// Its value, behind a `=` or as the next word.
    pub(super) fn value(
        self,
        cursor: &mut Cursor<'_>,
        vars: &Variables,
        option: &'static str,
        example: &'static str,
    ) -> Result<Text, Fault> {
        let missing = RecipeProblem::OptionWithoutValue { option, example };
        let value = match self.value {
            Some(text) => Text { text, at: self.at },
            None => match next_word(cursor, vars)? {
                Some(word) => word,
                None => return Fault::at(self.at, missing),
            },
        };
        if value.text.is_empty() {
            return Fault::at(self.at, missing);
        }
        Ok(value)
    }

    /// What it says behind a `=`.
    pub(super) fn attached(&self) -> Option<&str> {
        self.value.as_deref()
    }

    pub(super) fn unknown<T>(
        &self,
        instruction: &'static str,
        known: &'static str,
    ) -> Result<T, Fault> {
        let problem = RecipeProblem::UnknownOption {
            instruction,
            option: shown(&self.name),
            known,
        };
        Fault::at(self.at, problem)
    }
}

/// Whole seconds: `30`, `30s`, `1m30s`, `1h`.
pub(super) fn duration_sec(value: &Text, min: u32, max: u32) -> Result<u32, Fault> {
    seconds(&value.text)
        .filter(|seconds| (min..=max).contains(seconds))
        .map_or_else(
            || {
                let text = shown(&value.text);
                Fault::at(value.at, RecipeProblem::BadDuration { text, min, max })
            },
            Ok,
        )
}

fn seconds(text: &str) -> Option<u32> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    if !text.is_empty() && digits(text) == text.len() {
        return text.parse().ok();
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(digits(rest));
        let number: u64 = number.parse().ok()?;
        let (unit_ms, behind) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
            .into_iter()
            .find_map(|(unit, ms)| Some((ms, behind.strip_prefix(unit)?)))?;
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = behind;
    }
    let whole = !text.is_empty() && total_ms.is_multiple_of(1000);
    whole.then(|| u32::try_from(total_ms / 1000).ok())?
}

/// A number within bounds.
pub(super) fn number(value: &Text, min: u32, max: u32) -> Result<u32, Fault> {
    let plain = value.text.bytes().all(|b| b.is_ascii_digit());
    let number = value.text.parse().ok().filter(|n| (min..=max).contains(n));
    number.filter(|_| plain).map_or_else(
        || {
            let text = shown(&value.text);
            Fault::at(value.at, RecipeProblem::BadNumber { text, min, max })
        },
        Ok,
    )
}

/// Permission bits in octal.
pub(super) fn mode(value: &Text) -> Result<u32, Fault> {
    let octal =
        (3..=5).contains(&value.text.len()) && value.text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    u32::from_str_radix(&value.text, 8)
        .ok()
        .filter(|mode| octal && *mode <= 0o7777)
        .map_or_else(
            || {
                let text = shown(&value.text);
                Fault::at(value.at, RecipeProblem::BadMode { text })
            },
            Ok,
        )
}

/// What `chown` takes, and nothing that it could take for an option.
pub(super) fn owner(value: Text) -> Result<String, Fault> {
    let plain = |c: char| !is_blank(c) && !c.is_control() && c != ':' && c != '/';
    let (user, group) = match value.text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (value.text.as_str(), None),
    };
    let named = |name: &str| !name.is_empty() && !name.starts_with('-') && name.chars().all(plain);
    let good = match group {
        Some(group) => (user.is_empty() || named(user)) && named(group),
        None => named(user),
    };
    if good && value.text.len() <= super::NAME_BYTES_MAX {
        return Ok(value.text);
    }
    let text = shown(&value.text);
    Fault::at(value.at, RecipeProblem::BadOwner { text })
}
