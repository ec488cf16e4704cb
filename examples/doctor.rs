//! What this machine can do for sandboxes, what is missing, and the command that mends it.
//! Exits with 1 where sandboxes can't run.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::process::ExitCode;

use sandbox_sdk::EmbeddedConfig;

#[tokio::main]
async fn main() -> ExitCode {
    let config = EmbeddedConfig::default();
    let host_dir = config.data_dir.join("host");
    let report = sandbox_sdk::doctor(&host_dir, config.kernel_dir.as_deref()).await;
    print!("{report}");
    if report.healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
