//! Recipes as lists of shell commands and instructions.

use super::{
    RECIPE_BYTES_MAX,
    error::{Fault, RecipeError, RecipeProblem},
    reader::Reader,
    source::{self, Cursor, Pos},
    step::{Recipe, Step},
};

impl Recipe {
    /// Reads a list. Each entry is a shell command; or, where its first word is one of
    /// [`Step::INSTRUCTIONS`] in capitals, that instruction. See the [module](super) for what each
    /// takes. Total: it ends for every input, and never panics.
    ///
    /// # Errors
    /// The first thing that is wrong, with its entry, line and column.
    pub fn parse_list<S: AsRef<str>>(entries: &[S]) -> Result<Self, RecipeError> {
        let mut reader = Reader::new();
        let mut bytes = 0;
        for (entry, number) in entries.iter().zip(1..) {
            let entry = entry.as_ref();
            bytes += entry.len();
            let result = if bytes > RECIPE_BYTES_MAX {
                let max = RECIPE_BYTES_MAX;
                Fault::at(Pos::START, RecipeProblem::TooLong { max })
            } else {
                read_entry(&mut reader, entry)
            };
            result.map_err(|fault| RecipeError::new(Some(number), entry, fault))?;
        }
        Ok(reader.into_recipe())
    }
}

fn read_entry(reader: &mut Reader, entry: &str) -> Result<(), Fault> {
    let chars = source::chars(entry);
    if let Some(nul) = chars.iter().find(|ch| ch.c == '\0') {
        return Fault::at(nul.at, RecipeProblem::NulByte);
    }
    let mut cursor = Cursor::new(&chars, '\\');
    cursor.skip_blanks();
    cursor.trim_end();
    let at = cursor.pos();
    if cursor.is_empty() {
        return Fault::at(Pos::START, RecipeProblem::EmptyEntry);
    }
    let mut args = cursor.clone();
    let first = args.take_raw_word();
    if Step::INSTRUCTIONS.contains(&first.as_str()) {
        return reader.instruction(at, &first, &mut args);
    }
    let step = Step::Run {
        command: cursor.text(),
        timeout_sec: None,
    };
    reader.push(at, step)
}
