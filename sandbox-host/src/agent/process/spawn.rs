//! Starting a process: from a spec to what the kernel needs, then one `clone3` that borrows our
//! memory until the child executes (`vfork`), straight into its cgroup. No fork of the address
//! space, no helper thread, no pipe for errors: the child leaves its error in our memory.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use sandbox_core::{
    guest::GuestError,
    process::{Command, DEFAULT_PATH, ProcessSpec},
};

use super::{
    child::{self, ChildPlan, Step},
    user::{self, User},
};
use crate::agent::sys;

/// The kernel's own bound on one argument is 128 KiB; ours is on their number.
const ARGS_MAX: usize = 16 * 1024;

/// What a child gets as its stdin, stdout and stderr.
pub(crate) enum ChildStdio {
    /// Three descriptors.
    Pipes([OwnedFd; 3]),
    /// A terminal's slave side for all three.
    Terminal(OwnedFd),
}

/// Starts the spec's command. Returns its process ID.
pub(crate) fn spawn(
    spec: &ProcessSpec,
    sandbox_env: &BTreeMap<String, String>,
    stdio: &ChildStdio,
    cgroup: Option<&OwnedFd>,
) -> Result<u32, GuestError> {
    let name = program_name(&spec.command);
    let failed = |problem: String| GuestError::Spawn {
        command: name.chars().take(256).collect(),
        problem,
    };
    let user = user::look_up(spec.user.as_deref().unwrap_or("root"))?;
    let env = environment(spec, sandbox_env, &user);
    let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let (programs, args) = program_and_args(&spec.command, path);
    if args.len() > ARGS_MAX {
        return Err(failed(format!("more than {ARGS_MAX} arguments")));
    }
    if let Some(cwd) = &spec.cwd
        && !cwd.starts_with('/')
    {
        return Err(failed(format!(
            "the working directory {cwd:?} is not an absolute path"
        )));
    }
    let c_strings = |texts: Vec<String>, what: &str| {
        texts
            .into_iter()
            .map(|text| CString::new(text).map_err(|_| failed(format!("{what} holds a NUL byte"))))
            .collect::<Result<Vec<CString>, _>>()
    };
    let programs = c_strings(programs, "the program's name")?;
    let args = c_strings(args, "an argument")?;
    let env = c_strings(
        env.iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        "an environment variable",
    )?;
    let directories = match &spec.cwd {
        Some(cwd) => vec![cwd.clone()],
        None => vec![user.home.clone(), "/".to_owned()],
    };
    let directories = c_strings(directories, "the working directory")?;
    let (descriptors, terminal) = match stdio {
        ChildStdio::Pipes(pipes) => (pipes.each_ref().map(AsRawFd::as_raw_fd), false),
        ChildStdio::Terminal(slave) => ([slave.as_raw_fd(); 3], true),
    };
    if let ChildStdio::Terminal(slave) = stdio
        && user.uid != 0
    {
        // So that the user can open it by name too. Not being able to costs only that.
        let _ = std::os::unix::fs::fchown(slave, Some(user.uid), None);
    }
    let identity_changes = user.uid != 0 || spec.user.is_some();
    let plan = ChildPlan::new(
        &programs,
        &args,
        &env,
        &directories,
        descriptors,
        terminal,
        identity_changes.then_some(&user),
        sys::is_init(),
    );
    child::run(plan, cgroup).map_err(|(step, error)| {
        failed(match step {
            Step::Clone => format!("cannot make a process: {error}"),
            Step::Session => format!("cannot set up its session: {error}"),
            Step::User => format!("cannot become user {}: {error}", user.name),
            Step::Directory => format!(
                "working directory {}: {error}",
                spec.cwd.as_deref().unwrap_or("/")
            ),
            Step::Execute => error.to_string(),
        })
    })
}

fn program_name(command: &Command) -> &str {
    match command {
        Command::Shell(line) => line,
        Command::Program { program, .. } => program,
    }
}

/// The command as a list of processes shows it.
pub(crate) fn display(command: &Command) -> String {
    const SHOWN_CHARS: usize = 1024;
    match command {
        Command::Shell(line) => line.chars().take(SHOWN_CHARS).collect(),
        Command::Program { program, args } => {
            let mut shown = program.clone();
            for arg in args {
                if shown.len() > SHOWN_CHARS {
                    break;
                }
                shown.push(' ');
                shown.push_str(arg);
            }
            shown.chars().take(SHOWN_CHARS).collect()
        }
    }
}

/// Paths to try, in order, and the arguments with the program's own name first.
fn program_and_args(command: &Command, path: &str) -> (Vec<String>, Vec<String>) {
    match command {
        Command::Shell(line) => (
            vec!["/bin/sh".to_owned()],
            vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
        ),
        Command::Program { program, args } => {
            let tried = if program.contains('/') || program.is_empty() {
                vec![program.clone()]
            } else {
                path.split(':')
                    .map(|folder| match folder {
                        "" => program.clone(),
                        folder => format!("{folder}/{program}"),
                    })
                    .collect()
            };
            let mut all = Vec::with_capacity(args.len() + 1);
            all.push(program.clone());
            all.extend_from_slice(args);
            (tried, all)
        }
    }
}

fn environment(
    spec: &ProcessSpec,
    sandbox_env: &BTreeMap<String, String>,
    user: &User,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |key: &str, value: &str| {
        env.insert(key.to_owned(), value.to_owned());
    };
    set("PATH", DEFAULT_PATH);
    set("HOME", &user.home);
    set("USER", &user.name);
    set("LOGNAME", &user.name);
    set("SHELL", &user.shell);
    set("LANG", "C.UTF-8");
    if spec.pty.is_some() {
        set("TERM", "xterm-256color");
    }
    for (key, value) in sandbox_env.iter().chain(&spec.env) {
        set(key, value);
    }
    // A name that is empty or holds `=` can't be said to the kernel.
    env.retain(|key, _| !key.is_empty() && !key.contains('='));
    env
}

/// Both ends of a pipe; ours does not block, neither stays open in other children.
pub(crate) fn pipe(ours: OurEnd) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mine = match ours {
        OurEnd::Read => &read,
        OurEnd::Write => &write,
    };
    sys::set_nonblocking(mine)?;
    Ok((read, write))
}

/// Which end of a pipe stays with the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurEnd {
    /// The child writes.
    Read,
    /// The child reads.
    Write,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r5_the_spec_overrides_the_sandbox_and_that_the_defaults() {
        let mut spec = ProcessSpec::shell("true");
        spec.env.insert("B".into(), "spec".into());
        spec.env.insert("bad=name".into(), "x".into());
        let sandbox = BTreeMap::from([
            ("A".to_owned(), "sandbox".to_owned()),
            ("B".to_owned(), "sandbox".to_owned()),
            ("LANG".to_owned(), "de_DE.UTF-8".to_owned()),
        ]);
        let env = environment(&spec, &sandbox, &user::look_up("root").unwrap());
        assert_eq!(env["A"], "sandbox");
        assert_eq!(env["B"], "spec");
        assert_eq!(env["LANG"], "de_DE.UTF-8");
        assert_eq!(env["USER"], "root");
        assert!(!env.contains_key("TERM") && !env.contains_key("bad=name"));
    }

    #[test]
    fn a_program_with_a_slash_is_not_looked_up() {
        let command = |program: &str| Command::Program {
            program: program.into(),
            args: vec!["x".into()],
        };
        assert_eq!(program_and_args(&command("./a"), "/b:/c").0, ["./a"]);
        let (tried, args) = program_and_args(&command("a"), "/b::/c");
        assert_eq!(tried, ["/b/a", "a", "/c/a"]);
        assert_eq!(args, ["a", "x"]);
    }
}
