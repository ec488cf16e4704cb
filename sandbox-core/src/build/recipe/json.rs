//! The JSON form of arguments: `["program", "argument"]`.

use serde_json::Value;

use super::{
    error::{Fault, RecipeProblem},
    source::Cursor,
};

/// The strings of an array, if that is what is left. `None` for anything else, which means itself:
/// `[ -f /x ] && …` is a shell command.
pub(super) fn array(cursor: &Cursor<'_>) -> Result<Option<Vec<String>>, Fault> {
    if cursor.peek() != Some('[') {
        return Ok(None);
    }
    let text = cursor.text();
    match serde_json::from_str(&text) {
        Ok(Value::Array(elements)) => {
            let strings = elements.into_iter().map(|element| match element {
                Value::String(text) => Some(text),
                _ => None,
            });
            match strings.collect() {
                Some(strings) => Ok(Some(strings)),
                None => Fault::at(cursor.pos(), RecipeProblem::JsonNotStrings),
            }
        }
        Ok(_) => Ok(None),
        // No shell command begins like this, and nothing that was meant to be a command.
        Err(error) if text.starts_with("[\"") || text.starts_with("['") => {
            let line_start = text
                .split_inclusive('\n')
                .take(error.line().saturating_sub(1))
                .map(str::len)
                .sum::<usize>();
            let bytes = line_start + error.column().saturating_sub(1);
            let ahead = text
                .char_indices()
                .take_while(|(at, _)| *at < bytes)
                .count();
            let words = error.to_string();
            let reason = words
                .split(" at line ")
                .next()
                .unwrap_or_default()
                .to_owned();
            Fault::at(cursor.pos_of(ahead), RecipeProblem::NotJson { reason })
        }
        Err(_) => Ok(None),
    }
}
