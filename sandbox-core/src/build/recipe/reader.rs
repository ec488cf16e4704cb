//! From an instruction and its arguments to a step. What a list and a text have in common.

use super::{
    ENV_BYTES_MAX, ENV_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX, RECIPE_BYTES_MAX, SOURCES_MAX,
    STEP_BYTES_MAX, STEPS_MAX, TIMEOUT_SEC_MAX,
    error::{Fault, RecipeProblem, shown},
    is_blank, json,
    options::{self, Next},
    quote::shell_line,
    scope::Scope,
    source::{Cursor, Pos},
    step::{Recipe, Step},
    words::{self, Text, Variables},
};
use crate::{build::guest_path::says_dir, process::DEFAULT_PATH};

/// A command in either of its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// A shell line.
    Line(String),
    /// A program with its arguments.
    Words(Vec<String>),
}

impl Command {
    pub(super) fn into_line(self) -> String {
        match self {
            Self::Line(line) => line,
            Self::Words(words) => shell_line(&words),
        }
    }
}

/// The steps so far and what they define.
pub(super) struct Reader {
    steps: Vec<Step>,
    bytes: usize,
    scope: Scope,
    /// What `$NAME` is replaced by.
    pub(super) vars: Variables,
    /// What takes shell lines, where it is not `/bin/sh -c`.
    pub(super) shell: Option<Vec<String>>,
}

impl Reader {
    pub(super) fn new() -> Self {
        // Not set by a recipe, and still what `ENV PATH=/more:$PATH` means.
        let path = ("PATH".to_owned(), DEFAULT_PATH.to_owned());
        Self {
            steps: Vec::new(),
            bytes: 0,
            scope: Scope::default(),
            vars: Variables::from([path]),
            shell: None,
        }
    }

    pub(super) fn into_recipe(self) -> Recipe {
        Recipe { steps: self.steps }
    }

    pub(super) fn last(&self) -> Option<&Step> {
        self.steps.last()
    }

    /// Whether a step has set the variable.
    pub(super) fn env_has(&self, name: &str) -> bool {
        self.scope.env.contains_key(name)
    }

    /// Appends a step that begins at `at`.
    pub(super) fn push(&mut self, at: Pos, step: Step) -> Result<(), Fault> {
        if let Some(Step::Start { .. }) = self.last() {
            return Fault::at(
                at,
                match step {
                    Step::Start { .. } => RecipeProblem::SecondStart,
                    _ => RecipeProblem::StartNotLast,
                },
            );
        }
        if self.steps.len() == STEPS_MAX {
            return Fault::at(at, RecipeProblem::TooManySteps { max: STEPS_MAX });
        }
        if step.text().contains('\0') {
            return Fault::at(at, RecipeProblem::NulByte);
        }
        let bytes = step.bytes();
        if bytes > STEP_BYTES_MAX {
            let max = STEP_BYTES_MAX;
            return Fault::at(at, RecipeProblem::StepTooLong { max });
        }
        self.bytes += bytes;
        if self.bytes > RECIPE_BYTES_MAX {
            let max = RECIPE_BYTES_MAX;
            return Fault::at(at, RecipeProblem::TooLong { max });
        }
        self.scope.apply(&step);
        if let Step::Env { vars } = &step {
            self.vars.extend(vars.iter().cloned());
            let env = &self.scope.env;
            let bytes: usize = env
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            if env.len() > ENV_MAX || bytes > ENV_BYTES_MAX {
                let (vars_max, bytes_max) = (ENV_MAX, ENV_BYTES_MAX);
                let problem = RecipeProblem::EnvironmentTooLarge {
                    vars_max,
                    bytes_max,
                };
                return Fault::at(at, problem);
            }
        }
        if matches!(step, Step::Workdir { .. }) && self.scope.workdir.len() > PATH_BYTES_MAX {
            let max = PATH_BYTES_MAX;
            return Fault::at(at, RecipeProblem::BadPath { max });
        }
        self.steps.push(step);
        Ok(())
    }

    /// Reads the arguments of one of [`Step::INSTRUCTIONS`], and appends the step.
    pub(super) fn instruction(
        &mut self,
        at: Pos,
        name: &str,
        args: &mut Cursor<'_>,
    ) -> Result<(), Fault> {
        args.skip_blanks();
        args.trim_end();
        let step = match name {
            "ENV" => self.env(at, args)?,
            "WORKDIR" => self.workdir(at, args)?,
            "USER" => self.user(at, args)?,
            "COPY" => self.copy(at, args)?,
            "START" => {
                let command = self.start(at, "START", "START python3 /app/server.py", args)?;
                let command = command.into_line();
                Step::Start { command }
            }
            _ => self.run(at, args)?,
        };
        self.push(at, step)
    }

    fn run(&self, at: Pos, args: &mut Cursor<'_>) -> Result<Step, Fault> {
        let mut timeout_sec = None;
        let verbatim = loop {
            let option = match options::next_option(args, &self.vars)? {
                Next::Arguments => break false,
                Next::Mark => break true,
                Next::Option(option) => option,
            };
            match option.name.as_str() {
                "--timeout" => {
                    let value = option.value(args, &self.vars, "--timeout", "--timeout=30")?;
                    timeout_sec = Some(options::duration_sec(&value, 1, TIMEOUT_SEC_MAX)?);
                }
                // A cache only saves time: what would be in it is downloaded again.
                "--mount" if option.attached().is_some_and(is_cache) => {}
                "--mount" => {
                    let what = "RUN --mount of other kinds than a cache".to_owned();
                    let instead = "COPY what the command needs";
                    return Fault::at(option.at, RecipeProblem::Unsupported { what, instead });
                }
                "--network" if option.attached() == Some("default") => {}
                _ => return option.unknown("RUN", "it has `--timeout`, in seconds"),
            }
        };
        let example = "RUN apt-get install -y curl";
        let command = self.command(at, "RUN", example, args, verbatim)?;
        let command = command.into_line();
        if command.is_empty() {
            return malformed(at, "RUN", example);
        }
        Ok(Step::Run {
            command,
            timeout_sec,
        })
    }

    /// A command without options.
    pub(super) fn start(
        &self,
        at: Pos,
        instruction: &'static str,
        example: &'static str,
        args: &mut Cursor<'_>,
    ) -> Result<Command, Fault> {
        let verbatim = match options::next_option(&mut args.clone(), &self.vars)? {
            Next::Arguments => false,
            Next::Mark => {
                options::next_option(args, &self.vars)?;
                true
            }
            Next::Option(option) => {
                let known = "it takes a command only, behind `--` where that begins with hyphens";
                return option.unknown(instruction, known);
            }
        };
        let command = self.command(at, instruction, example, args, verbatim)?;
        if instruction == "START" && command == Command::Words(Vec::new()) {
            return malformed(at, instruction, example);
        }
        Ok(command)
    }

    /// A command. What is verbatim is a line, whatever it looks like.
    pub(super) fn command(
        &self,
        at: Pos,
        instruction: &'static str,
        example: &'static str,
        args: &mut Cursor<'_>,
        verbatim: bool,
    ) -> Result<Command, Fault> {
        args.skip_blanks();
        if args.is_empty() {
            return malformed(at, instruction, example);
        }
        if !verbatim && let Some(words) = json::array(args)? {
            return Ok(Command::Words(words));
        }
        let line = args.text();
        Ok(Command::Line(match &self.shell {
            Some(shell) => {
                let words: Vec<_> = shell.iter().chain([&line]).collect();
                shell_line(&words)
            }
            None => line,
        }))
    }

    fn env(&self, at: Pos, args: &mut Cursor<'_>) -> Result<Step, Fault> {
        const EXAMPLE: &str = "ENV NAME=value OTHER=\"two words\"";
        if args.is_empty() {
            return malformed(at, "ENV", EXAMPLE);
        }
        let start = args.pos();
        let first = args.clone().take_raw_word();
        if !first.contains('=') {
            // The older form: one variable, and all the rest is its value.
            args.take_raw_word();
            args.skip_blanks();
            if args.is_empty() {
                let word = shown(&first);
                return Fault::at(start, RecipeProblem::NoEquals { word });
            }
            let name = variable_name(&first, start)?;
            let value = words::rest(args, &self.vars)?.text;
            let vars = vec![(name, value)];
            return Ok(Step::Env { vars });
        }
        let mut vars = Vec::new();
        for Text { text, at } in words::words(args, &self.vars)? {
            let Some((name, value)) = text.split_once('=') else {
                let word = shown(&text);
                return Fault::at(at, RecipeProblem::NoEquals { word });
            };
            vars.push((variable_name(name, at)?, value.to_owned()));
        }
        Ok(Step::Env { vars })
    }

    fn workdir(&self, at: Pos, args: &mut Cursor<'_>) -> Result<Step, Fault> {
        if args.is_empty() {
            return malformed(at, "WORKDIR", "WORKDIR /app");
        }
        let path = path(words::rest(args, &self.vars)?)?;
        Ok(Step::Workdir { path })
    }

    fn user(&self, at: Pos, args: &mut Cursor<'_>) -> Result<Step, Fault> {
        if args.is_empty() {
            return malformed(at, "USER", "USER nobody");
        }
        let Text { text, at } = words::rest(args, &self.vars)?;
        if let Some((user, _)) = text.split_once(':') {
            let user = shown(user);
            return Fault::at(at, RecipeProblem::UserWithGroup { user });
        }
        let strange = |c: char| is_blank(c) || c.is_control() || c == '/';
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(strange) {
            let text = shown(&text);
            return Fault::at(at, RecipeProblem::BadUser { text });
        }
        Ok(Step::User { name: text })
    }

    pub(super) fn copy(&self, at: Pos, args: &mut Cursor<'_>) -> Result<Step, Fault> {
        let (mut mode, mut owner) = (None, None);
        let vars = &self.vars;
        let verbatim = loop {
            let option = match options::next_option(args, vars)? {
                Next::Arguments => break false,
                Next::Mark => break true,
                Next::Option(option) => option,
            };
            match option.name.as_str() {
                "--chown" => {
                    let value = option.value(args, vars, "--chown", "--chown=app:app")?;
                    owner = Some(options::owner(value)?);
                }
                "--chmod" => {
                    let value = option.value(args, vars, "--chmod", "--chmod=755")?;
                    mode = Some(options::mode(&value)?);
                }
                // Says how the result is stored elsewhere, and nothing about what is in it.
                "--link" if matches!(option.attached(), None | Some("true" | "false")) => {}
                "--from" => {
                    let what = "COPY --from another stage or image".to_owned();
                    let instead = "builds have one stage: make the files by RUN, or upload them";
                    return Fault::at(option.at, RecipeProblem::Unsupported { what, instead });
                }
                _ => return option.unknown("COPY", "it has `--chown` and `--chmod`"),
            }
        };
        let start = args.pos();
        let array = if verbatim { None } else { json::array(args)? };
        let mut words = match array {
            Some(strings) => {
                let word = |text: String| {
                    let text = words::substitute(&text, start, vars)?;
                    Ok(Text { text, at: start })
                };
                strings
                    .into_iter()
                    .map(word)
                    .collect::<Result<_, Fault>>()?
            }
            None => words::words(args, vars)?,
        };
        let last = words.pop().filter(|_| !words.is_empty());
        let Some(last) = last else {
            return malformed(at, "COPY", "COPY app.py config/ /srv/app/");
        };
        if words.len() > SOURCES_MAX {
            let max = SOURCES_MAX;
            return Fault::at(at, RecipeProblem::TooManySources { max });
        }
        let dest_at = last.at;
        let dest = path(last)?;
        let sources = words
            .into_iter()
            .map(source)
            .collect::<Result<Vec<_>, _>>()?;
        if sources.len() > 1 && !says_dir(&dest) {
            let dest = shown(&dest);
            return Fault::at(dest_at, RecipeProblem::NotADirectory { dest });
        }
        Ok(Step::Copy {
            sources,
            dest,
            mode,
            owner,
        })
    }
}

fn is_cache(mount: &str) -> bool {
    mount.split(',').any(|part| part == "type=cache")
}

pub(super) fn malformed<T>(
    at: Pos,
    instruction: &'static str,
    example: &'static str,
) -> Result<T, Fault> {
    let problem = RecipeProblem::Malformed {
        instruction,
        example,
    };
    Fault::at(at, problem)
}

/// A name that no reader of words takes for anything else.
pub(super) fn variable_name(name: &str, at: Pos) -> Result<String, Fault> {
    let strange = |c: char| is_blank(c) || c.is_control() || "=\"'\\$`".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(strange) {
        let (name, max) = (shown(name), NAME_BYTES_MAX);
        return Fault::at(at, RecipeProblem::BadVariableName { name, max });
    }
    Ok(name.to_owned())
}

fn path(Text { text, at }: Text) -> Result<String, Fault> {
    if text.is_empty() || text.len() > PATH_BYTES_MAX {
        let max = PATH_BYTES_MAX;
        return Fault::at(at, RecipeProblem::BadPath { max });
    }
    Ok(text)
}

fn source(source: Text) -> Result<String, Fault> {
    if source.text.split('/').any(|part| part == "..") {
        let source_path = shown(&source.text);
        return Fault::at(source.at, RecipeProblem::SourceOutside { source_path });
    }
    path(source)
}
