//! The program `sandbox`: see [`sandbox_sdk::cli`].

fn main() -> std::process::ExitCode {
    sandbox_sdk::cli::main()
}
