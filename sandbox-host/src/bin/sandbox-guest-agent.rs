//! The guest agent: `/init` of every VM.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandbox_host::agent::main()
}
