//! The program `sandbox`: what it is told (`args`), whom it asks (`session`), one file for each
//! family of commands, and how it tells people and programs what came of it (`view`,
//! `failure`).
//!
//! What never happens here: anything that the SDK could not do for an app as well.

mod admin;
mod args;
mod build;
mod copy;
mod doctor;
mod exec;
mod failure;
mod place;
mod processes;
mod progress;
mod sandboxes;
mod session;
mod signal;
mod templates;
mod terminal;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Admin, Cli, Command};
use failure::{EXEC_FAILED, Failure};
use session::Session;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let json = cli.global.json;
    let in_exec = matches!(cli.command, Command::Exec(_));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            let failure = Failure::local("can't start threads")(source);
            return failure.tell(json, in_exec);
        }
    };
    let done = runtime.block_on(run(cli));
    // A thread may still be waiting for a key to be pressed.
    runtime.shutdown_background();
    match done {
        Ok(code) => code.into(),
        Err(failure) => failure.tell(json, in_exec),
    }
}

/// A command line that makes no sense, or asks for help.
fn refuse(error: &clap::Error) -> ExitCode {
    // Nothing can be told where stderr is closed.
    let _ = error.print();
    let for_exec = || {
        let words = std::env::args().skip(1);
        words
            .take_while(|word| word != "--")
            .any(|word| word == "exec")
    };
    if error.use_stderr() && for_exec() {
        // Other codes would be taken for the command's.
        return EXEC_FAILED.into();
    }
    u8::try_from(error.exit_code()).unwrap_or(2).into()
}

async fn run(cli: Cli) -> Result<u8, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sandbox", &mut script);
            view::bytes(&script).map(|()| 0)
        }
        Command::Doctor => doctor::doctor(&global).await,
        command => {
            let json = global.json;
            let builds = matches!(&command, Command::Build(build) if build.is_new());
            let session = interruptible(Box::pin(Session::open(global, builds))).await?;
            let done = carry_out(&session, command).await;
            session.close(json).await;
            done
        }
    }
}

async fn carry_out(session: &Session, command: Command) -> Result<u8, Failure> {
    match command {
        // Its signals are the command's.
        Command::Exec(args) => return exec::exec(session, args).await,
        Command::Create(args) => interruptible(sandboxes::create(session, args)).await,
        Command::Ls(args) => interruptible(sandboxes::ls(session, args)).await,
        Command::Get(args) => interruptible(sandboxes::get(session, args.id)).await,
        Command::Ping(args) => interruptible(sandboxes::ping(session, args.id)).await,
        Command::Pause(args) => interruptible(sandboxes::pause(session, args.id)).await,
        Command::Resume(args) => interruptible(sandboxes::resume(session, args.id)).await,
        Command::Snapshot(args) => interruptible(templates::snapshot(session, args)).await,
        Command::Templates(args) => interruptible(templates::ls(session, args)).await,
        Command::Template(args) => interruptible(templates::template(session, args)).await,
        Command::Build(args) => return build::build(session, *args).await,
        Command::Admin(Admin::Plan) => interruptible(admin::plan(session)).await,
        Command::Rm(args) => interruptible(sandboxes::rm(session, args)).await,
        Command::Ps(args) => interruptible(processes::ps(session, args.id)).await,
        Command::Kill(args) => interruptible(processes::kill(session, &args)).await,
        Command::Logs(args) => return interruptible(processes::logs(session, &args)).await,
        Command::Cp(args) => interruptible(copy::cp(session, args)).await,
        Command::Doctor | Command::Completion { .. } => Ok(()),
    }
    .map(|()| 0)
}

/// Ends at the user's word. What was begun with the platform goes on there.
async fn interruptible<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    }
}
