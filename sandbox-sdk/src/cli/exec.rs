//! Running a command in a sandbox as if it ran here: its input, output, signals and exit are passed
//! on.

use std::{convert::Infallible, future::pending, time::Duration};

use bytes::BytesMut;
use futures::{Stream, TryStreamExt};
use sandbox_core::{
    error::Error,
    process::{CHUNK_MAX_BYTES, Exit, ExitStatus, OutputRequest},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    args::Exec,
    failure::{Failure, INTERRUPTED, TIMED_OUT},
    session::Session,
    signal::PIPE,
    terminal::{self, RawMode},
    view,
};
use crate::{Command, Process, ProcessEvent, Result};

/// After so many signals this program leaves the command to itself.
const SIGNALS_MAX: u32 = 3;
/// How long the command waits for us once we no longer come by: after that we were killed. Until
/// then nothing of its output is dropped, also while whoever reads ours takes their time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often we come by.
const COME_BY: Duration = Duration::from_secs(10);
/// How long to wait for a command to take a last signal.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn exec(session: &Session, args: Exec) -> Result<u8, Failure> {
    let command = command(session, &args);
    if args.detach {
        let process = command.spawn().await?;
        if session.json {
            view::json(&serde_json::json!({"pid": process.pid()}))?;
        } else {
            view::line(process.pid())?;
        }
        return Ok(0);
    }
    if session.json && (args.interactive || args.tty) {
        return Err(Failure::Own(
            "--json gathers the output of a command that runs by itself; leave -i and -t out"
                .to_owned(),
        ));
    }
    if session.json {
        let run = async { Ok(command.output().await?) };
        let output = super::interruptible(run).await?;
        view::json(&view::exec_output(&output))?;
        return Ok(exit_code(Exit {
            status: output.status,
            timed_out: output.timed_out,
            duration_us: 0,
        }));
    }
    // Before it starts, so that no signal is missed.
    let mut signals = Signals::listen()?;
    let process = command.wait_for_readers_up_to(PATIENCE).spawn().await?;
    let raw = (args.tty && args.interactive && terminal::stdin_is_one())
        .then(RawMode::enter)
        .transpose()?;
    let ended = tokio::select! {
        ended = show(process.events()) => ended,
        failure = feed(&process, args.interactive) => Err(failure),
        ended = signals.pass_on(&process, args.tty) => ended,
        never = come_by(session, &args, &process) => match never {},
    };
    drop(raw);
    if ended.is_err() {
        leave(session, &args, &process, &ended).await;
    }
    let exit = match ended? {
        Some(exit) => exit,
        None => {
            view::note(format_args!(
                "the command goes on; `sandbox kill -s KILL {} {}` ends it",
                args.id,
                process.pid()
            ));
            return Ok(INTERRUPTED);
        }
    };
    if exit.timed_out {
        view::note("the command was killed: its time was up");
    }
    Ok(exit_code(exit))
}

fn command(session: &Session, args: &Exec) -> Command {
    let sandbox = session.sandbox(args.id);
    let (program, rest) = args
        .command
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let mut command = sandbox.command(program).args(rest);
    for (name, value) in &args.env {
        command = command.env(name, value);
    }
    if let Some(path) = &args.cwd {
        command = command.cwd(path);
    }
    if let Some(user) = &args.user {
        command = command.user(user);
    }
    if let Some(timeout) = args.timeout {
        command = command.timeout(timeout);
    }
    if args.interactive {
        command = command.piped_stdin();
    }
    if args.tty {
        command = command.pty(terminal::size());
    }
    command
}

/// What a shell would say of this end.
pub(super) fn exit_code(exit: Exit) -> u8 {
    match exit.status {
        _ if exit.timed_out => TIMED_OUT,
        // As wait(2) tells it: the low eight bits.
        ExitStatus::Code(code) => (code & 0xff) as u8,
        ExitStatus::Signal(number) => (128 + (number & 0x7f)) as u8,
    }
}

/// Copies output to its end.
async fn show(events: impl Stream<Item = Result<ProcessEvent>>) -> Result<Option<Exit>, Failure> {
    let mut sink = Sink::new();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.try_next().await? {
        if let ProcessEvent::Exit(exit) = event {
            return Ok(Some(exit));
        }
        sink.write(event).await?;
    }
    Err(Error::Internal("a process's output ended without its exit".to_owned()).into())
}

/// Lets the command know that someone still reads, while our own output is not taken.
async fn come_by(session: &Session, args: &Exec, process: &Process) -> Infallible {
    let api = &session.client.api;
    // Asks again for what we have: that frees nothing, and comes at once.
    let request = OutputRequest {
        offset: 0,
        max_bytes: 1,
        wait_ms: 0,
    };
    loop {
        tokio::time::sleep(COME_BY).await;
        // What is wrong shows where output is read.
        let read = api.read_output(args.id, process.pid(), request);
        tokio::time::timeout(COME_BY, read).await.ok();
    }
}

/// Copies our stdin to the command's. Gives only failures: the command decides when it is done.
async fn feed(process: &Process, interactive: bool) -> Failure {
    if !interactive {
        return pending().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut piece = BytesMut::new();
    loop {
        piece.reserve(CHUNK_MAX_BYTES as usize);
        let (sent, at_end) = match stdin.read_buf(&mut piece).await {
            Ok(0) => (process.close_stdin().await, true),
            Ok(_) => (process.write_stdin(piece.split().freeze()).await, false),
            Err(source) => return Failure::local("can't read stdin")(source),
        };
        match sent {
            Ok(()) if !at_end => {}
            // With an error, it has closed its stdin or ended, and says so by itself.
            Ok(()) | Err(Error::Guest(_)) => return pending().await,
            Err(error) => return error.into(),
        }
    }
}

/// We can't go on. The command must neither wait for us nor write to nobody.
async fn leave(
    session: &Session,
    args: &Exec,
    process: &Process,
    ended: &Result<Option<Exit>, Failure>,
) {
    let last_words = async {
        if let Err(Failure::NoReader) = ended {
            // As it would be told if it wrote to the pipe itself.
            process.signal(PIPE).await.ok();
        }
        let api = &session.client.api;
        api.detach_output(args.id, process.pid()).await.ok();
    };
    tokio::time::timeout(LAST_WORD_LIMIT, last_words).await.ok();
}

/// Where a process's output goes.
pub(super) struct Sink {
    stdout: tokio::io::Stdout,
    stderr: tokio::io::Stderr,
}

impl Sink {
    pub(super) fn new() -> Self {
        Self {
            stdout: tokio::io::stdout(),
            stderr: tokio::io::stderr(),
        }
    }

    pub(super) async fn write(&mut self, event: ProcessEvent) -> Result<(), Failure> {
        let written = match event {
            ProcessEvent::Stdout(bytes) => match self.stdout.write_all(&bytes).await {
                Ok(()) => self.stdout.flush().await,
                failed => failed,
            },
            ProcessEvent::Stderr(bytes) => match self.stderr.write_all(&bytes).await {
                Ok(()) => self.stderr.flush().await,
                failed => failed,
            },
            ProcessEvent::Dropped(count) => {
                view::note(format_args!("{count} bytes of output were not kept"));
                Ok(())
            }
            ProcessEvent::Exit(_) => Ok(()),
        };
        written.map_err(Failure::output)
    }
}

/// The signals that are the command's and not ours.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
    window: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(Failure::local("can't listen for signals"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
            quit: on(SignalKind::quit())?,
            window: on(SignalKind::window_change())?,
        })
    }

    /// Passes signals on until there were too many, which gives `None`.
    async fn pass_on(&mut self, process: &Process, tty: bool) -> Result<Option<Exit>, Failure> {
        for _ in 1..SIGNALS_MAX {
            let kind = loop {
                tokio::select! {
                    _ = self.interrupt.recv() => break SignalKind::interrupt(),
                    _ = self.terminate.recv() => break SignalKind::terminate(),
                    _ = self.hang_up.recv() => break SignalKind::hangup(),
                    _ = self.quit.recv() => break SignalKind::quit(),
                    _ = self.window.recv(), if tty => {
                        // One that has ended needs no size.
                        process.resize(terminal::size()).await.ok();
                    }
                }
            };
            match process.signal(kind.as_raw_value()).await {
                // It has ended, and its output will say so.
                Ok(()) | Err(Error::Guest(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
            _ = self.quit.recv() => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r45_exit_codes_are_those_of_a_shell() {
        let exit = |status, timed_out| {
            exit_code(Exit {
                status,
                timed_out,
                duration_us: 1,
            })
        };
        assert_eq!(exit(ExitStatus::Code(0), false), 0);
        assert_eq!(exit(ExitStatus::Code(255), false), 255);
        assert_eq!(exit(ExitStatus::Signal(9), false), 137);
        assert_eq!(exit(ExitStatus::Signal(9), true), 124);
    }
}
