//! Recipes as texts: the subset of a Dockerfile that is a recipe.

use std::collections::BTreeSet;

use super::{
    RECIPE_BYTES_MAX, TIMEOUT_SEC_MAX,
    error::{Fault, RecipeError, RecipeProblem, shown},
    heredoc, json,
    options::{self, Next},
    reader::{Command, Reader, malformed, variable_name},
    source::{self, Cursor, LogicalLines, Pos},
    step::{Recipe, Step},
    words::{self, Text, Variables},
};
use crate::name::TemplateName;

/// What a text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeText {
    /// The template to begin with, from `FROM`.
    pub base: Option<TemplateName>,
    /// The steps.
    pub recipe: Recipe,
    /// How to tell that what was started works, from `HEALTHCHECK`.
    pub healthcheck: Option<HealthcheckText>,
}

/// A `HEALTHCHECK`, as far as it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthcheckText {
    /// A shell line that exits with 0 when all is well.
    pub cmd: String,
    /// Between two tries, in seconds.
    pub interval_sec: Option<u32>,
    /// How long one try may take, in seconds.
    pub timeout_sec: Option<u32>,
    /// How long failures do not count, in seconds.
    pub start_period_sec: Option<u32>,
    /// Failures in a row after which it is given up.
    pub retries: Option<u32>,
}

impl Recipe {
    /// Reads a text, such as the content of a Dockerfile. See the [module](super) for what it may
    /// have. Total: it ends for every input, and never panics.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and column.
    pub fn parse_text(text: &str) -> Result<RecipeText, RecipeError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        read(text).map_err(|fault| RecipeError::new(None, text, fault))
    }
}

fn read(text: &str) -> Result<RecipeText, Fault> {
    if text.len() > RECIPE_BYTES_MAX {
        let max = RECIPE_BYTES_MAX;
        return Fault::at(Pos::START, RecipeProblem::TooLong { max });
    }
    if text.contains('\0')
        && let Some(nul) = source::chars(text).iter().find(|ch| ch.c == '\0')
    {
        return Fault::at(nul.at, RecipeProblem::NulByte);
    }
    let mut lines = LogicalLines::new(text);
    while let Some((name, value, at)) = lines.next_directive() {
        match (name.as_str(), value) {
            ("escape", "\\") => lines.escape = '\\',
            ("escape", "`") => lines.escape = '`',
            ("escape", _) => return Fault::at(at, RecipeProblem::BadEscape),
            _ => {}
        }
    }
    let mut file = File::new();
    while let Some(line) = lines.next_line() {
        file.instruction(&mut Cursor::new(&line, lines.escape))?;
    }
    file.finish()
}

/// What the lines so far have said.
struct File {
    reader: Reader,
    base: Option<TemplateName>,
    /// Whether anything but ARG has come.
    begun: bool,
    /// What ARG defines above FROM; below it, what a bare ARG brings down.
    args_above: Variables,
    /// Variables that ARG has set, and no ENV.
    args: BTreeSet<String>,
    entrypoint: Option<(Pos, Command)>,
    cmd: Option<(Pos, Command)>,
    healthcheck: Option<HealthcheckText>,
}

impl File {
    fn new() -> Self {
        Self {
            reader: Reader::new(),
            base: None,
            begun: false,
            args_above: Variables::new(),
            args: BTreeSet::new(),
            entrypoint: None,
            cmd: None,
            healthcheck: None,
        }
    }

    fn instruction(&mut self, line: &mut Cursor<'_>) -> Result<(), Fault> {
        let at = line.pos();
        let word = line.take_raw_word();
        line.skip_blanks();
        line.trim_end();
        let name = word.to_ascii_uppercase();
        if matches!(name.as_str(), "RUN" | "COPY" | "ADD" | "START" | "CMD")
            && let Some(at) = heredoc::find(line)
        {
            return Fault::at(at, RecipeProblem::Heredoc);
        }
        match name.as_str() {
            "ARG" => return self.arg(at, line),
            "FROM" => return self.from(at, line),
            _ => self.begin(at)?,
        }
        match name.as_str() {
            name if Step::INSTRUCTIONS.contains(&name) => {
                self.reader.instruction(at, name, line)?;
                if let Some(Step::Env { vars }) = self.reader.last() {
                    for (name, _) in vars {
                        self.args.remove(name);
                    }
                }
                Ok(())
            }
            "CMD" => {
                let example = "CMD [\"python3\", \"/app/server.py\"]";
                self.cmd = Some((at, self.reader.start(at, "CMD", example, line)?));
                Ok(())
            }
            "ENTRYPOINT" => {
                let example = "ENTRYPOINT [\"/app/server\"]";
                let command = self.reader.start(at, "ENTRYPOINT", example, line)?;
                self.entrypoint = Some((at, command));
                Ok(())
            }
            "HEALTHCHECK" => self.healthcheck(at, line),
            "SHELL" => self.shell(at, line),
            "ADD" => self.add(at, line),
            "LABEL" | "EXPOSE" | "MAINTAINER" | "VOLUME" | "STOPSIGNAL" => Ok(()),
            "ONBUILD" => {
                let what = name;
                let instead = "builds that begin from this template have recipes of their own";
                Fault::at(at, RecipeProblem::Unsupported { what, instead })
            }
            _ => {
                let word = shown(&word);
                Fault::at(at, RecipeProblem::UnknownInstruction { word })
            }
        }
    }

    /// Without a FROM, what ARG has defined holds from here on.
    fn begin(&mut self, at: Pos) -> Result<(), Fault> {
        if !self.begun && !self.args_above.is_empty() {
            let vars: Vec<_> = std::mem::take(&mut self.args_above).into_iter().collect();
            self.args.extend(vars.iter().map(|(name, _)| name.clone()));
            self.reader.push(at, Step::Env { vars })?;
        }
        self.begun = true;
        Ok(())
    }

    fn from(&mut self, at: Pos, line: &mut Cursor<'_>) -> Result<(), Fault> {
        const EXAMPLE: &str = "FROM minimal";
        if self.base.is_some() {
            return Fault::at(at, RecipeProblem::SecondFrom);
        }
        if self.begun {
            return Fault::at(at, RecipeProblem::FromNotFirst);
        }
        if let Next::Option(option) = options::next_option(line, &self.args_above)? {
            return option.unknown("FROM", "a template has its host's platform; leave it out");
        }
        let Some(base) = words::next_word(line, &self.args_above)? else {
            return malformed(at, "FROM", EXAMPLE);
        };
        // The name of a stage is for other stages, and there are none.
        let behind = words::words(line, &self.args_above)?;
        if let [first, ..] = behind.as_slice() {
            let named = behind.len() == 2 && first.text.eq_ignore_ascii_case("as");
            if !named {
                return malformed(first.at, "FROM", EXAMPLE);
            }
        }
        let Ok(name) = base.text.parse() else {
            let name = shown(&base.text);
            return Fault::at(base.at, RecipeProblem::BadBase { name });
        };
        self.base = Some(name);
        self.begun = true;
        Ok(())
    }

    /// An argument with a default is a variable that has it, unless an ENV has set it.
    fn arg(&mut self, at: Pos, line: &mut Cursor<'_>) -> Result<(), Fault> {
        let above = !self.begun;
        let vars = if above {
            &self.args_above
        } else {
            &self.reader.vars
        };
        let words = words::words(line, vars)?;
        if words.is_empty() {
            return malformed(at, "ARG", "ARG VERSION=1.2");
        }
        let mut vars = Vec::new();
        for Text { text, at } in words {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text.as_str(), None),
            };
            let name = variable_name(name, at)?;
            if self.reader.env_has(&name) && value.is_none() {
                continue;
            }
            let inherited = self.args_above.get(&name).map(String::as_str);
            let Some(value) = value.or(inherited) else {
                return Fault::at(at, RecipeProblem::ArgWithoutValue { name });
            };
            if above {
                self.args_above.insert(name, value.to_owned());
            } else if !self.reader.env_has(&name) || self.args.contains(&name) {
                self.args.insert(name.clone());
                vars.push((name, value.to_owned()));
            }
        }
        if !vars.is_empty() {
            self.reader.push(at, Step::Env { vars })?;
        }
        Ok(())
    }

    fn shell(&mut self, at: Pos, line: &Cursor<'_>) -> Result<(), Fault> {
        let example = "SHELL [\"/bin/bash\", \"-c\"]";
        match json::array(line)? {
            Some(words) if words.is_empty() => malformed(at, "SHELL", example),
            Some(words) => {
                let usual = words == ["/bin/sh", "-c"];
                self.reader.shell = (!usual).then_some(words);
                Ok(())
            }
            None => {
                let instruction = "SHELL";
                Fault::at(
                    at,
                    RecipeProblem::JsonOnly {
                        instruction,
                        example,
                    },
                )
            }
        }
    }

    /// COPY, where it does just what COPY does.
    fn add(&mut self, at: Pos, line: &mut Cursor<'_>) -> Result<(), Fault> {
        let step = self.reader.copy(at, line)?;
        if let Step::Copy { sources, .. } = &step {
            for source in sources {
                let instead = if source.contains("://") || source.starts_with("git@") {
                    "RUN curl or git to download"
                } else if is_archive(source) {
                    "COPY the archive and RUN tar to unpack it"
                } else if source.contains(['*', '?', '[']) {
                    "use COPY, which never unpacks what the wildcard finds"
                } else {
                    continue;
                };
                let what = format!("ADD of `{}`", shown(source));
                return Fault::at(at, RecipeProblem::Unsupported { what, instead });
            }
        }
        self.reader.push(at, step)
    }

    fn healthcheck(&mut self, at: Pos, line: &mut Cursor<'_>) -> Result<(), Fault> {
        const EXAMPLE: &str = "HEALTHCHECK --interval=1s CMD curl -f http://localhost:8000/";
        const RETRIES_MAX: u32 = 1000;
        let (mut interval_sec, mut timeout_sec) = (None, None);
        let (mut start_period_sec, mut retries) = (None, None);
        let vars = &self.reader.vars;
        while let Next::Option(option) = options::next_option(line, vars)? {
            match option.name.as_str() {
                "--interval" => {
                    let value = option.value(line, vars, "--interval", "--interval=5s")?;
                    interval_sec = Some(options::duration_sec(&value, 1, TIMEOUT_SEC_MAX)?);
                }
                "--timeout" => {
                    let value = option.value(line, vars, "--timeout", "--timeout=5s")?;
                    timeout_sec = Some(options::duration_sec(&value, 1, TIMEOUT_SEC_MAX)?);
                }
                "--start-period" => {
                    let value = option.value(line, vars, "--start-period", "--start-period=30s")?;
                    start_period_sec = Some(options::duration_sec(&value, 0, TIMEOUT_SEC_MAX)?);
                }
                "--retries" => {
                    let value = option.value(line, vars, "--retries", "--retries=3")?;
                    retries = Some(options::number(&value, 1, RETRIES_MAX)?);
                }
                // How often is asked at first: the interval serves there too.
                "--start-interval" => {
                    option.value(line, vars, "--start-interval", "--start-interval=1s")?;
                }
                _ => {
                    let known =
                        "it has `--interval`, `--timeout`, `--start-period` and `--retries`";
                    return option.unknown("HEALTHCHECK", known);
                }
            }
        }
        let kind = line.take_raw_word().to_ascii_uppercase();
        line.skip_blanks();
        self.healthcheck = match kind.as_str() {
            "NONE" if line.is_empty() => None,
            "CMD" => {
                let command = self
                    .reader
                    .command(at, "HEALTHCHECK", EXAMPLE, line, false)?;
                let cmd = command.into_line();
                if cmd.is_empty() {
                    return malformed(at, "HEALTHCHECK", EXAMPLE);
                }
                if cmd.contains('\0') {
                    return Fault::at(at, RecipeProblem::NulByte);
                }
                Some(HealthcheckText {
                    cmd,
                    interval_sec,
                    timeout_sec,
                    start_period_sec,
                    retries,
                })
            }
            _ => return malformed(at, "HEALTHCHECK", EXAMPLE),
        };
        Ok(())
    }

    /// What ENTRYPOINT and CMD say together is started last, wherever they stood.
    fn finish(mut self) -> Result<RecipeText, Fault> {
        let entrypoint = self.entrypoint.filter(|(_, command)| !is_nothing(command));
        let cmd = self.cmd.filter(|(_, command)| !is_nothing(command));
        let start = match (entrypoint, cmd) {
            (Some((at, Command::Words(mut words))), Some((_, cmd))) => {
                words.extend(match cmd {
                    Command::Words(more) => more,
                    Command::Line(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line],
                });
                Some((at, Command::Words(words)))
            }
            (Some(entrypoint), _) => Some(entrypoint),
            (None, cmd) => cmd,
        };
        if let Some((at, command)) = start {
            let command = command.into_line();
            self.reader.push(at, Step::Start { command })?;
        }
        Ok(RecipeText {
            base: self.base,
            recipe: self.reader.into_recipe(),
            healthcheck: self.healthcheck,
        })
    }
}

/// An empty array takes back what was said before.
fn is_nothing(command: &Command) -> bool {
    matches!(command, Command::Words(words) if words.is_empty())
}

fn is_archive(source: &str) -> bool {
    let name = source.to_ascii_lowercase();
    [
        ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst",
    ]
    .iter()
    .any(|ending| name.ends_with(ending))
}
