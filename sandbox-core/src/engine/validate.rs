//! Whether a request makes sense, before anything is written or asked of anyone. Every refusal
//! names the field as it is called on the wire.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    error::Error,
    lifecycle::NewSandbox,
    name::TemplateName,
    process::{CHUNK_MAX_BYTES, Command, ProcessSpec, PtySize, Stdin},
    sandbox::{CreateSandbox, PageRequest},
    size::MachineSize,
};

/// The longest lifetime, in seconds: ten years.
pub(super) const TIMEOUT_SEC_MAX: u64 = 10 * 365 * 24 * 3600;
/// The most labels of a sandbox.
pub(super) const METADATA_MAX: usize = 64;
/// The longest label name, in bytes.
pub(super) const METADATA_KEY_BYTES_MAX: usize = 128;
/// The longest label value, in bytes.
pub(super) const METADATA_VALUE_BYTES_MAX: usize = 1024;
/// The most environment variables.
pub(super) const ENV_MAX: usize = 256;
/// The longest name of an environment variable, in bytes.
pub(super) const ENV_NAME_BYTES_MAX: usize = 256;
/// The most bytes in all names and values of an environment. Linux takes arguments and environment
/// of 2 MiB together, and 128 KiB in one of them.
pub(super) const ENV_BYTES_MAX: usize = 64 * 1024;
/// The longest idempotency key, in bytes.
pub(super) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// The longest shell line, and the most in all arguments together, in bytes.
pub(super) const COMMAND_BYTES_MAX: usize = 120 * 1024;
/// The longest path and user name, in bytes.
pub(super) const PATH_BYTES_MAX: usize = 4096;
/// The most bytes of stdin that travel with a command. Longer input is written to a pipe.
pub(super) const STDIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest output log in a guest, in bytes.
pub(super) const RETAIN_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// The smallest: one page of a pipe.
pub(super) const RETAIN_BYTES_MIN: u32 = 4096;
/// The longest that one call waits for a process.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

fn bad<T>(field: &str, problem: impl std::fmt::Display) -> Result<T, Error> {
    Err(Error::InvalidRequest(format!("`{field}`: {problem}")))
}

fn short(field: &str, what: &str, text: &str, bytes_max: usize) -> Result<(), Error> {
    if text.len() > bytes_max {
        let got = text.len();
        return bad(
            field,
            format!("{what} is {got} bytes long; at most {bytes_max} are allowed"),
        );
    }
    if text.contains('\0') {
        return bad(field, format!("{what} holds a NUL byte"));
    }
    Ok(())
}

/// Checks a request for a sandbox and fills in its defaults.
pub(super) fn create(request: CreateSandbox) -> Result<NewSandbox, Error> {
    let template = match &request.template {
        None => TemplateName::default(),
        Some(name) => match name.parse() {
            Ok(name) => name,
            Err(problem) => return bad("template", problem),
        },
    };
    let size = MachineSize::from_request(request.vcpus, request.memory_mb, request.disk_size_mb)
        .map_err(|error| Error::InvalidRequest(error.to_string()))?;
    if let Some(timeout) = request.timeout_sec
        && !(1..=TIMEOUT_SEC_MAX).contains(&timeout)
    {
        return bad(
            "timeout_sec",
            format!("it is {timeout}; it must be from 1 to {TIMEOUT_SEC_MAX}, or absent"),
        );
    }
    labels(&request.metadata)?;
    environment("env", &request.env)?;
    if let Some(key) = &request.idempotency_key {
        if key.is_empty() {
            return bad("idempotency_key", "it is empty");
        }
        short("idempotency_key", "it", key, IDEMPOTENCY_KEY_BYTES_MAX)?;
    }
    Ok(NewSandbox {
        template,
        size,
        timeout_sec: request.timeout_sec,
        metadata: request.metadata,
        env: request.env,
        idempotency_key: request.idempotency_key,
    })
}

fn labels(metadata: &BTreeMap<String, String>) -> Result<(), Error> {
    let field = "metadata";
    if metadata.len() > METADATA_MAX {
        let got = metadata.len();
        return bad(
            field,
            format!("{got} labels; at most {METADATA_MAX} are allowed"),
        );
    }
    for (key, value) in metadata {
        if key.is_empty() {
            return bad(field, "a label's name is empty");
        }
        short(field, "a label's name", key, METADATA_KEY_BYTES_MAX)?;
        short(field, "a label's value", value, METADATA_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

fn environment(field: &str, env: &BTreeMap<String, String>) -> Result<(), Error> {
    if env.len() > ENV_MAX {
        let got = env.len();
        return bad(
            field,
            format!("{got} variables; at most {ENV_MAX} are allowed"),
        );
    }
    let mut bytes = 0;
    for (name, value) in env {
        if name.is_empty() || name.contains('=') {
            return bad(
                field,
                format!("{name:?} can't name a variable: it is empty or has a `=`"),
            );
        }
        short(field, "a variable's name", name, ENV_NAME_BYTES_MAX)?;
        short(field, "a variable's value", value, ENV_BYTES_MAX)?;
        bytes += name.len() + value.len();
    }
    if bytes > ENV_BYTES_MAX {
        return bad(
            field,
            format!("{bytes} bytes in all; at most {ENV_BYTES_MAX} are allowed"),
        );
    }
    Ok(())
}

/// Checks a process to start.
pub(super) fn process(spec: &ProcessSpec) -> Result<(), Error> {
    match &spec.command {
        Command::Shell(line) if line.trim().is_empty() => return bad("cmd", "it is empty"),
        Command::Shell(line) => short("cmd", "it", line, COMMAND_BYTES_MAX)?,
        Command::Program { program, args } => {
            if program.is_empty() {
                return bad("cmd", "it is empty");
            }
            short("cmd", "it", program, PATH_BYTES_MAX)?;
            for arg in args {
                short("args", "an argument", arg, COMMAND_BYTES_MAX)?;
            }
            let bytes: usize = args.iter().map(|arg| arg.len() + 1).sum();
            if bytes > COMMAND_BYTES_MAX {
                let limit = COMMAND_BYTES_MAX;
                return bad(
                    "args",
                    format!("{bytes} bytes in all; at most {limit} are allowed"),
                );
            }
        }
    }
    environment("env", &spec.env)?;
    if let Some(cwd) = &spec.cwd {
        if !cwd.starts_with('/') {
            return bad("cwd", "it must be an absolute path");
        }
        short("cwd", "it", cwd, PATH_BYTES_MAX)?;
    }
    if let Some(user) = &spec.user {
        if user.is_empty() {
            return bad("user", "it is empty");
        }
        short("user", "it", user, PATH_BYTES_MAX)?;
    }
    if let Stdin::Bytes(bytes) = &spec.stdin
        && bytes.len() > STDIN_BYTES_MAX
    {
        let got = bytes.len();
        return bad(
            "stdin",
            format!("{got} bytes; at most {STDIN_BYTES_MAX} travel with a command, more by a pipe"),
        );
    }
    if spec.timeout_ms == Some(0) {
        return bad("timeout_sec", "it is 0; leave it out for no limit");
    }
    if !(RETAIN_BYTES_MIN..=RETAIN_BYTES_MAX).contains(&spec.retain_bytes) {
        return bad(
            "retain_bytes",
            format!(
                "it is {}; it must be from {RETAIN_BYTES_MIN} to {RETAIN_BYTES_MAX}",
                spec.retain_bytes
            ),
        );
    }
    spec.pty.map_or(Ok(()), pty_size)
}

/// Checks a terminal's size.
pub(super) fn pty_size(size: PtySize) -> Result<(), Error> {
    if size.rows == 0 || size.cols == 0 {
        return bad("pty", "a terminal has at least one row and one column");
    }
    Ok(())
}

/// Checks a signal's number.
pub(super) fn signal(signal: i32) -> Result<(), Error> {
    if (1..=64).contains(&signal) {
        return Ok(());
    }
    bad(
        "signal",
        format!("{signal} is no signal; they go from 1 to 64"),
    )
}

/// Checks a piece of data for one message.
pub(super) fn chunk(data: &[u8]) -> Result<(), Error> {
    if data.len() <= CHUNK_MAX_BYTES as usize {
        return Ok(());
    }
    let got = data.len();
    bad(
        "data",
        format!("{got} bytes; at most {CHUNK_MAX_BYTES} go in one call"),
    )
}

/// Checks which part of a list is asked for.
pub(super) fn page(page: PageRequest) -> Result<(), Error> {
    if (1..=PageRequest::LIMIT_MAX).contains(&page.limit) {
        return Ok(());
    }
    let (got, max) = (page.limit, PageRequest::LIMIT_MAX);
    bad("limit", format!("it is {got}; it must be from 1 to {max}"))
}
