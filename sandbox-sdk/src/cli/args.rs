//! What the program is told on its command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use sandbox_core::{
    id::SandboxId,
    name::TemplateName,
    sandbox::{OnTimeout, SandboxState},
    template::TemplateKind,
};

use super::place::Place;

const EXAMPLES: &str = "\
EXAMPLES
  sandbox doctor                                 can this machine run sandboxes?
  id=$(sandbox create)                           make one, and keep its ID
  sandbox exec $id -- uname -a                   run a program in it
  sandbox exec $id -- sh -c 'echo $HOME | wc'    run a shell line in it
  sandbox exec -it $id -- sh                     work in it, as in a terminal
  tar c . | sandbox exec -i $id -- tar x -C /srv
  sandbox cp ./app $id:/srv/app                  copy a file or folder in
  sandbox cp $id:/srv/result.csv .               and out
  pid=$(sandbox exec -d $id -- ./server)         leave something running
  sandbox logs -f $id $pid                       follow what it writes
  sandbox pause $id                              keep its memory and disk, run nothing
  sandbox resume $id                             and go on where it was
  sandbox snapshot $id --name warm               make a template of it, memory and all
  sandbox create --template warm                 start a clone of that
  sandbox rm $id                                 remove it and all that it holds

WHERE SANDBOXES LIVE
  Without --remote they run on this machine, and everything is kept in one folder (--data). If
  a sandboxd serves that folder, it is asked; otherwise no daemon is needed. Sandboxes run on
  when this program ends.
  With --remote a control plane is asked: unix:/path/to/sandboxd.sock or tcp:HOST:PORT.

ENVIRONMENT
  SANDBOX_REMOTE         the control plane, as --remote
  SANDBOX_API_KEY        the API key for it; --key-file goes before it
  SANDBOX_API_KEY_FILE   a file with the API key, as --key-file
  SANDBOX_DATA           the folder, as --data; SANDBOX_DATA_DIR where it is not set

EXIT CODES
  0    done
  1    not done; stderr has one line that says what, why, and what to do
  2    the command line makes no sense
  130  interrupted
  exec, and logs -f, exit as the command did: with its code, or 128 and the signal's number. And
  124  --timeout ended the command
  125  exec itself failed
  126  the command could not be started";

/// Isolated Linux machines: created in a fraction of a second, used like a child process, and gone
/// without a trace.
#[derive(Debug, Parser)]
#[command(
    name = "sandbox",
    version,
    after_help = "`sandbox --help` has examples, environment variables and exit codes.",
    after_long_help = EXAMPLES,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(super) struct Global {
    /// Ask this control plane: unix:/path/to/socket or tcp:HOST:PORT
    #[arg(long, global = true, value_name = "URL", conflicts_with = "data")]
    pub(super) remote: Option<String>,
    /// Keep everything in this folder [default: /var/lib/sandbox for root, else
    /// ~/.local/share/sandbox]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Read the API key from this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Write JSON, for programs; errors too
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a sandbox and print its ID
    Create(Create),
    /// List sandboxes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show what is known of a sandbox
    Get(One),
    /// Run a command in a sandbox and exit as it did
    Exec(Exec),
    /// List the processes that were started in a sandbox
    Ps(One),
    /// Send a signal to a process and its children
    Kill(Kill),
    /// Print what a process has written
    Logs(Logs),
    /// Copy files and folders into a sandbox, or out of it
    Cp(Cp),
    /// Remove sandboxes and all that they hold
    Rm(Rm),
    /// Ask a sandbox for a sign of life, and push its timeout
    Ping(One),
    /// Save a sandbox's memory and disk, and run nothing
    Pause(One),
    /// Have a paused sandbox go on where it was
    Resume(One),
    /// Make a template of a sandbox and print its name
    Snapshot(Snapshot),
    /// List what sandboxes start from
    Templates(Templates),
    /// Show, remove and import templates
    #[command(subcommand)]
    Template(Template),
    /// For administrators of a platform
    #[command(subcommand)]
    Admin(Admin),
    /// Say what this machine can do, what is missing, and what mends it
    Doctor,
    /// Print a script that completes this program's commands
    #[command(after_help = "For bash: sandbox completion bash > \
                            ~/.local/share/bash-completion/completions/sandbox")]
    Completion {
        /// For this shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The sandbox's ID
    #[arg(value_name = "ID")]
    pub(super) id: SandboxId,
}

#[derive(Debug, Args)]
#[command(
    after_help = "EXAMPLE\n  sandbox create --memory-mb 1024 --timeout 30m --label job=nightly"
)]
pub(super) struct Create {
    /// The template to start from, by name or ID [default: minimal]
    #[arg(short, long, value_name = "NAME")]
    pub(super) template: Option<String>,
    /// Virtual CPUs [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub(super) vcpus: Option<u32>,
    /// Memory in MiB [default: 512]
    #[arg(long, value_name = "MB")]
    pub(super) memory_mb: Option<u32>,
    /// Disk in MiB [default: 5120]; the host spends only what is written
    #[arg(long, value_name = "MB")]
    pub(super) disk_size_mb: Option<u32>,
    /// Destroy or pause it once it was not used for this long, such as 90, 30m or 2h [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// What becomes of it then: destroy or pause [default: destroy]
    #[arg(long, value_name = "ACTION", requires = "timeout", value_parser = on_timeout)]
    pub(super) on_timeout: Option<OnTimeout>,
    /// A label to find it by; may be repeated
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) labels: Vec<(String, String)>,
    /// An environment variable of every process in it; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) env: Vec<(String, String)>,
    /// Makes retries safe: one key, one sandbox
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only in this state: pending, running, paused, stopped, error or missing
    #[arg(long, value_parser = state)]
    pub(super) state: Option<SandboxState>,
    /// Only from this template
    #[arg(short, long, value_name = "NAME")]
    pub(super) template: Option<TemplateName>,
    /// Only with this label; may be repeated
    #[arg(short, long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) labels: Vec<(String, String)>,
    /// Print IDs alone, one a line
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  sandbox exec ID -- ls -l /etc
  sandbox exec -it ID -- sh
  sandbox exec -i ID -- sort < numbers

SIGNALS
  INT, TERM, HUP and QUIT go to the command. After the third, this program leaves it to itself.

EXIT CODES
  That of the command, or 128 and the number of the signal that ended it. And
  124  --timeout ended the command
  125  exec itself failed
  126  the command could not be started")]
pub(super) struct Exec {
    /// Pass stdin on
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Run it on a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Leave it running, and print its process ID
    #[arg(short, long, conflicts_with = "interactive")]
    pub(super) detach: bool,
    /// The working directory [default: the user's home]
    #[arg(short = 'w', long, value_name = "PATH")]
    pub(super) cwd: Option<String>,
    /// An environment variable; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    pub(super) env: Vec<(String, String)>,
    /// The user, by name or number [default: root]
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// Kill it with its children after this long, such as 10, 1.5s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// The sandbox's ID
    #[arg(value_name = "ID")]
    pub(super) id: SandboxId,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    #[arg(value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// The signal, by name or number
    #[arg(short, long, default_value = "TERM", value_parser = super::signal::parse)]
    pub(super) signal: i32,
    /// The sandbox's ID
    #[arg(value_name = "ID")]
    pub(super) id: SandboxId,
    /// The process ID, from `sandbox ps`
    pub(super) pid: u32,
}

#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Go on until the process ends, and exit as it did
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Begin behind this many bytes of output, stdout and stderr together
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(super) offset: u64,
    /// The sandbox's ID
    #[arg(value_name = "ID")]
    pub(super) id: SandboxId,
    /// The process ID, from `sandbox ps` or `sandbox exec -d`
    pub(super) pid: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  sandbox cp ./app ID:/srv/app        a file, or a folder with all in it
  sandbox cp ID:/var/log ./logs
  sandbox cp - ID:/etc/motd           from stdin
  sandbox cp ID:/etc/hostname -       to stdout

Where the target is a folder, the copy goes into it under its old name. Permissions go along;
links and devices are left out with a note. A local file with a colon is written ./a:b.")]
pub(super) struct Cp {
    /// Where from: a local path, ID:/path, or - for stdin
    pub(super) source: Place,
    /// Where to: a local path, ID:/path, or - for stdout
    pub(super) target: Place,
}

#[derive(Debug, Args)]
pub(super) struct Rm {
    /// The sandboxes' IDs; `$(sandbox ls -q)` for all
    #[arg(value_name = "ID", required = true)]
    pub(super) ids: Vec<SandboxId>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLE
  sandbox snapshot ID --name warm --resume
  sandbox create --template warm

The sandbox is paused afterwards, unless --resume is given.")]
pub(super) struct Snapshot {
    /// The template's name [default: one that is made up]
    #[arg(short, long)]
    pub(super) name: Option<String>,
    /// Let a sandbox that runs go on afterwards
    #[arg(long)]
    pub(super) resume: bool,
    /// Take the disk alone: what is made of it boots, and may have another size
    #[arg(long)]
    pub(super) image: bool,
    /// The sandbox's ID
    #[arg(value_name = "ID")]
    pub(super) id: SandboxId,
}

#[derive(Debug, Args)]
pub(super) struct Templates {
    /// Only of this kind: image or snapshot
    #[arg(long = "type", value_name = "KIND", value_parser = kind)]
    pub(super) kind: Option<TemplateKind>,
    /// Those of all teams, with the sandboxes on them; for administrators
    #[arg(long)]
    pub(super) all: bool,
    /// Print names alone, one a line
    #[arg(short, long, conflicts_with = "all")]
    pub(super) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Admin {
    /// Show what the reconciler would do now, and whether any of it breaks a rule; does nothing
    Plan,
}

#[derive(Debug, Subcommand)]
pub(super) enum Template {
    /// Show what is known of a template
    Get {
        /// Its name or ID
        name: String,
    },
    /// Remove templates; sandboxes that were started from them run on
    Rm {
        /// Their names or IDs
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Make a template from a folder, an archive, an OCI image or a Debian release
    Import(Import),
}

#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  sandbox template import app --dir ./rootfs
  sandbox template import app --tar rootfs.tar.zst
  sandbox template import alpine --oci docker.io/library/alpine:3.20
  sandbox template import python --debian bookworm:python3,python3-pip

Paths are those of the machine that sandboxes run on. Only an administrator may import.")]
pub(super) struct Import {
    /// The template's name
    pub(super) name: String,
    #[command(flatten)]
    pub(super) source: Source,
    /// Which image, where the layout holds several
    #[arg(long, value_name = "REFERENCE")]
    #[arg(conflicts_with_all = ["dir", "tar", "oci", "debian"])]
    pub(super) reference: Option<String>,
    /// The registry speaks HTTP without TLS
    #[arg(long, conflicts_with_all = ["dir", "tar", "oci_layout", "debian"])]
    pub(super) insecure: bool,
    /// Virtual CPUs of a sandbox that asks for none [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub(super) vcpus: Option<u32>,
    /// Memory in MiB of a sandbox that asks for none [default: 512]
    #[arg(long, value_name = "MB")]
    pub(super) memory_mb: Option<u32>,
    /// Disk in MiB of a sandbox that asks for none [default: 5120, or what the content needs]
    #[arg(long, value_name = "MB")]
    pub(super) disk_size_mb: Option<u32>,
}

/// Where a template comes from: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Source {
    /// A folder that becomes the root
    #[arg(long, value_name = "PATH")]
    pub(super) dir: Option<PathBuf>,
    /// A tar archive, plain or compressed with gzip or zstd
    #[arg(long, value_name = "PATH")]
    pub(super) tar: Option<PathBuf>,
    /// An OCI image layout: a folder, or a tar of one
    #[arg(long, value_name = "PATH")]
    pub(super) oci_layout: Option<PathBuf>,
    /// An OCI image from a registry, by its full name
    #[arg(long, value_name = "REFERENCE")]
    pub(super) oci: Option<String>,
    /// A Debian release, with packages beside the base system
    #[arg(long, value_name = "SUITE[:PACKAGE,...]")]
    pub(super) debian: Option<String>,
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn state(text: &str) -> Result<SandboxState, String> {
    let found = named(SandboxState::ALL, SandboxState::as_str, text);
    found.map_err(|all| format!("the states are {}", all.join(", ")))
}

fn on_timeout(text: &str) -> Result<OnTimeout, String> {
    let found = named(OnTimeout::ALL, OnTimeout::as_str, text);
    found.map_err(|all| format!("the actions are {}", all.join(", ")))
}

fn kind(text: &str) -> Result<TemplateKind, String> {
    let found = named(TemplateKind::ALL, TemplateKind::as_str, text);
    found.map_err(|all| format!("there are {}", all.join(" and ")))
}

/// The one that is called so, or what there is.
fn named<T: Copy, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
    text: &str,
) -> Result<T, [&'static str; N]> {
    let found = all.into_iter().find(|one| name(*one) == text);
    found.ok_or_else(|| all.map(name))
}

/// `90`, `1.5s`, `30m`, `2h`, `1d`; seconds where there is no unit.
fn duration(text: &str) -> Result<Duration, String> {
    const BAD: &str = "write a time such as 90, 1.5s, 30m, 2h or 1d, above 0";
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| BAD)?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return Err(BAD.to_owned()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(BAD.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn r45_what_follows_the_id_belongs_to_the_command() {
        let id = "sb-0190163d-8694-739b-aea5-966c26f8ad91";
        for line in [
            format!("sandbox exec -it {id} -- ls --json -i"),
            format!("sandbox exec -it {id} ls --json -i"),
        ] {
            let cli = parse(&line).unwrap();
            let Command::Exec(exec) = cli.command else {
                panic!("{cli:?}");
            };
            assert!(exec.interactive && exec.tty && !cli.global.json);
            assert_eq!(exec.command, ["ls", "--json", "-i"]);
        }
    }

    #[test]
    fn r42_what_makes_no_sense_is_refused() {
        let id = "sb-0190163d-8694-739b-aea5-966c26f8ad91";
        for line in [
            "sandbox".to_owned(),
            "sandbox get nonsense".to_owned(),
            format!("sandbox exec {id}"),
            format!("sandbox exec -di {id} true"),
            format!("sandbox kill {id} 7 -s SIGNONSENSE"),
            "sandbox create --label novalue".to_owned(),
            "sandbox create --timeout 0".to_owned(),
            "sandbox create --timeout -1s".to_owned(),
            "sandbox create --timeout infd".to_owned(),
            "sandbox ls --state happy".to_owned(),
            "sandbox ls --remote unix:/x --data /y".to_owned(),
            "sandbox snapshot".to_owned(),
            "sandbox templates --type disk".to_owned(),
            "sandbox template import x".to_owned(),
            "sandbox template import x --tar a --dir b".to_owned(),
            "sandbox template import x --tar a --insecure".to_owned(),
            "sandbox template import x --oci a --reference b".to_owned(),
        ] {
            assert!(parse(&line).is_err(), "{line}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in [
            ("90", 90_000),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("250ms", 250),
        ] {
            assert_eq!(duration(text).unwrap().as_millis(), ms, "{text}");
        }
    }
}
