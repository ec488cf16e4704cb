//! The few commands that a simulated guest understands.
//!
//! `echo TEXT… [>&2]`, `cat` (stdin) and `cat PATH`, `printenv NAME`, `sleep SECONDS`, `spew BYTES`,
//! `head -c BYTES /dev/zero`, `poke PAGE VALUE` and `peek PAGE` (a word of memory), `true`, `false`, `exit N`, and `exec` before any; in a shell line
//! several of them, apart by `;`, where a word `$NAME` is a variable's value.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use crate::{
    guest::GuestError,
    process::{Command, OutputStream},
};

/// One thing that a simulated process does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Writes this.
    Write(OutputStream, Bytes),
    /// Writes so many bytes.
    Spew(u64),
    /// Copies stdin to stdout until it is closed.
    CopyStdin,
    /// Waits.
    Sleep(Duration),
    /// Changes a page of the guest's memory, as soon as the process starts.
    Poke(u32, u64),
    /// Ends.
    Exit(i32),
}

/// What a script can look up when it starts.
pub(super) trait Surroundings {
    fn variable(&self, name: &str) -> Option<String>;
    fn content(&self, path: &str) -> Option<Bytes>;
    fn page(&self, number: u32) -> u64;
}

/// The steps of a command.
pub(super) fn parse(
    command: &Command,
    around: &dyn Surroundings,
) -> Result<VecDeque<Step>, GuestError> {
    match command {
        Command::Shell(line) => {
            let mut steps = VecDeque::new();
            for statement in line.split(';') {
                let words: Vec<String> = statement
                    .split_whitespace()
                    .map(|word| match word.strip_prefix('$') {
                        Some(name) => around.variable(name).unwrap_or_default(),
                        None => word.to_owned(),
                    })
                    .collect();
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let Some((program, args)) = words.split_first() else {
                    continue;
                };
                match simple(program, args, around) {
                    Some(more) => steps.extend(more),
                    None => {
                        let text = format!("sh: {program}: not found\n");
                        steps.push_back(Step::Write(OutputStream::Stderr, text.into()));
                        steps.push_back(Step::Exit(127));
                    }
                }
            }
            Ok(steps)
        }
        Command::Program { program, args } => {
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            let steps = simple(program, &words, around);
            steps.map(VecDeque::from).ok_or_else(|| GuestError::Spawn {
                command: program.clone(),
                problem: "No such file or directory (os error 2)".to_owned(),
            })
        }
    }
}

fn simple(program: &str, args: &[&str], around: &dyn Surroundings) -> Option<Vec<Step>> {
    let failed = |text: String| {
        vec![
            Step::Write(OutputStream::Stderr, text.into()),
            Step::Exit(1),
        ]
    };
    let number = || args.first().and_then(|arg| arg.parse::<f64>().ok());
    Some(match (program, args) {
        ("echo", [text @ .., ">&2"]) => vec![line(OutputStream::Stderr, text)],
        ("echo", text) => vec![line(OutputStream::Stdout, text)],
        ("cat", []) => vec![Step::CopyStdin],
        ("cat", [path, ..]) => match around.content(path) {
            Some(content) => vec![Step::Write(OutputStream::Stdout, content)],
            None => failed(format!("cat: {path}: No such file or directory\n")),
        },
        ("printenv", [name, ..]) => match around.variable(name) {
            Some(value) => vec![line(OutputStream::Stdout, &[&value])],
            None => vec![Step::Exit(1)],
        },
        ("sleep", _) => match number().map(Duration::try_from_secs_f64) {
            Some(Ok(duration)) => vec![Step::Sleep(duration)],
            _ => failed("sleep: bad number\n".to_owned()),
        },
        ("exec", [program, args @ ..]) => return simple(program, args, around),
        ("spew", [bytes, ..]) | ("head", ["-c", bytes, "/dev/zero"]) => {
            vec![Step::Spew(bytes.parse().ok()?)]
        }
        ("poke", [page, value, ..]) => vec![Step::Poke(page.parse().ok()?, value.parse().ok()?)],
        ("peek", [page, ..]) => {
            let value = around.page(page.parse().ok()?);
            vec![line(OutputStream::Stdout, &[&value.to_string()])]
        }
        ("true", _) => vec![],
        ("false", _) => vec![Step::Exit(1)],
        ("exit", [code, ..]) => vec![Step::Exit(code.parse().ok()?)],
        _ => return None,
    })
}

fn line(stream: OutputStream, words: &[&str]) -> Step {
    Step::Write(stream, format!("{}\n", words.join(" ")).into())
}
