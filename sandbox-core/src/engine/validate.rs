//! Whether a request makes sense, before anything is written or asked of anyone. Every refusal
//! names the field as it is called on the wire.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    build::{HEALTHCHECK_MAX, Healthcheck, Recipe, Step},
    error::Error,
    id::TemplateId,
    name::TemplateName,
    process::{CHUNK_MAX_BYTES, Command, ProcessSpec, PtySize, Stdin},
    sandbox::{CreateSandbox, PageRequest},
    size::MachineSize,
    template::{ImportSource, TemplateKind},
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
/// The longest reference to an OCI image, in bytes.
pub(super) const REFERENCE_BYTES_MAX: usize = 512;
/// The longest name of a Debian package or release, in bytes.
pub(super) const DEBIAN_NAME_BYTES_MAX: usize = 128;
/// The most packages beside the base system.
pub(super) const PACKAGES_MAX: usize = 256;
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

/// How a template is named in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// By its written ID.
    Id(TemplateId),
    /// By its name.
    Name(TemplateName),
}

/// Reads what names a template that is there. What reads as an ID is never a name.
pub(super) fn named(field: &str, text: &str) -> Result<Named, Error> {
    if let Ok(id) = text.parse() {
        return Ok(Named::Id(id));
    }
    match text.parse() {
        Ok(name) => Ok(Named::Name(name)),
        Err(problem) => bad(field, problem),
    }
}

/// Reads the name of a template that is to be made. One that looks like an ID could be taken for
/// another template's.
pub(super) fn new_name(text: &str) -> Result<TemplateName, Error> {
    let looks_like_an_id = text
        .strip_prefix(TemplateId::PREFIX)
        .is_some_and(|rest| rest.starts_with('-'));
    if looks_like_an_id {
        let prefix = TemplateId::PREFIX;
        return bad(
            "name",
            format!("a name does not begin with `{prefix}-`: IDs do"),
        );
    }
    text.parse().or_else(|problem| bad("name", problem))
}

/// Checks what a request for a sandbox says, apart from its template.
pub(super) fn create(request: &CreateSandbox) -> Result<(), Error> {
    size(
        MachineSize::default(),
        request.vcpus,
        request.memory_mb,
        request.disk_size_mb,
    )?;
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
    request
        .idempotency_key
        .as_deref()
        .map_or(Ok(()), idempotency_key)
}

/// Checks an idempotency key.
pub(super) fn idempotency_key(key: &str) -> Result<(), Error> {
    if key.is_empty() {
        return bad("idempotency_key", "it is empty");
    }
    short("idempotency_key", "it", key, IDEMPOTENCY_KEY_BYTES_MAX)
}

/// Checks a recipe that did not come through the parser.
pub(super) fn recipe(recipe: &Recipe) -> Result<(), Error> {
    if recipe.steps.is_empty() {
        return bad("recipe", "it is empty; give one step at least");
    }
    if recipe.steps.iter().any(|step| step.text().contains('\0')) {
        return bad("recipe", "it holds a NUL byte");
    }
    let last = recipe.steps.len() - 1;
    let early = recipe
        .steps
        .iter()
        .position(|step| matches!(step, Step::Start { .. }));
    match early {
        Some(place) if place != last => bad("recipe", "START is not its last step"),
        _ => Ok(()),
    }
}

/// Checks a healthcheck.
pub(super) fn healthcheck(check: &Healthcheck) -> Result<(), Error> {
    if check.cmd.trim().is_empty() {
        return bad("healthcheck.cmd", "it is empty");
    }
    short("healthcheck.cmd", "it", &check.cmd, COMMAND_BYTES_MAX)?;
    for (field, value, min) in [
        ("healthcheck.interval_sec", check.interval_sec, 1),
        ("healthcheck.timeout_sec", check.timeout_sec, 1),
        ("healthcheck.start_period_sec", check.start_period_sec, 0),
        ("healthcheck.retries", check.retries, 0),
    ] {
        if !(min..=HEALTHCHECK_MAX).contains(&value) {
            return bad(
                field,
                format!("it is {value}; it must be from {min} to {HEALTHCHECK_MAX}"),
            );
        }
    }
    Ok(())
}

/// What was asked for, within bounds, and the default for the rest.
pub(super) fn size(
    default: MachineSize,
    vcpus: Option<u32>,
    memory_mb: Option<u32>,
    disk_size_mb: Option<u32>,
) -> Result<MachineSize, Error> {
    default
        .or_asked(vcpus, memory_mb, disk_size_mb)
        .map_err(|error| Error::InvalidRequest(error.to_string()))
}

/// The size of a sandbox that starts from a template: an image fits any that was asked for, a
/// snapshot's memory and disk have the size that they have.
pub(super) fn size_from(
    kind: TemplateKind,
    own: MachineSize,
    request: &CreateSandbox,
) -> Result<MachineSize, Error> {
    let CreateSandbox {
        vcpus,
        memory_mb,
        disk_size_mb,
        ..
    } = request;
    size_on(kind, own, *vcpus, *memory_mb, *disk_size_mb)
}

/// Like [`size_from`], of what was asked for.
pub(super) fn size_on(
    kind: TemplateKind,
    own: MachineSize,
    vcpus: Option<u32>,
    memory_mb: Option<u32>,
    disk_size_mb: Option<u32>,
) -> Result<MachineSize, Error> {
    if kind == TemplateKind::Snapshot {
        for (field, asked, has) in [
            ("vcpus", vcpus, own.vcpus),
            ("memory_mb", memory_mb, own.memory_mb),
            ("disk_size_mb", disk_size_mb, own.disk_size_mb),
        ] {
            if let Some(asked) = asked.filter(|asked| *asked != has) {
                return bad(
                    field,
                    format!(
                        "it is {asked}; a sandbox of this snapshot has exactly its size, {has}"
                    ),
                );
            }
        }
        return Ok(own);
    }
    size(own, vcpus, memory_mb, disk_size_mb)
}

/// Checks where a template is to come from.
pub(super) fn source(source: &ImportSource) -> Result<(), Error> {
    match source {
        ImportSource::Directory { path } | ImportSource::Tar { path } => host_path(path),
        ImportSource::OciLayout { path, reference } => {
            host_path(path)?;
            reference
                .as_deref()
                .map_or(Ok(()), |reference| word("reference", reference))
        }
        ImportSource::OciRegistry { reference, .. } => word("reference", reference),
        ImportSource::Debian { suite, packages } => {
            debian_word("suite", suite)?;
            if packages.len() > PACKAGES_MAX {
                let got = packages.len();
                return bad(
                    "packages",
                    format!("{got} packages; at most {PACKAGES_MAX} are allowed"),
                );
            }
            packages
                .iter()
                .try_for_each(|package| debian_word("packages", package))
        }
    }
}

fn host_path(path: &str) -> Result<(), Error> {
    if !path.starts_with('/') {
        return bad("path", "it must be an absolute path on the host");
    }
    short("path", "it", path, PATH_BYTES_MAX)
}

/// What goes to a tool or a server as one word, and never as an option.
fn word(field: &str, text: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_graphic();
    if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
        return bad(
            field,
            "it is empty, begins with `-`, or has a blank or a character that is not ASCII",
        );
    }
    short(field, "it", text, REFERENCE_BYTES_MAX)
}

/// The names of Debian's packages and releases.
fn debian_word(field: &str, text: &str) -> Result<(), Error> {
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.');
    let starts_well = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !starts_well || !text.bytes().all(plain) {
        return bad(
            field,
            "such a name is made of `a-z`, `0-9`, `+`, `-` and `.`, and begins with a letter or digit",
        );
    }
    short(field, "a name", text, DEBIAN_NAME_BYTES_MAX)
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

/// Checks how many items of a list are asked for.
pub(super) fn limit(limit: u32) -> Result<(), Error> {
    let max = PageRequest::LIMIT_MAX;
    if (1..=max).contains(&limit) {
        return Ok(());
    }
    bad(
        "limit",
        format!("it is {limit}; it must be from 1 to {max}"),
    )
}
