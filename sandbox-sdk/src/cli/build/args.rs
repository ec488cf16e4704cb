//! What `sandbox build` is told on its command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use sandbox_core::{build::BuildStatus, id::BuildId, name::TemplateName};

use crate::cli::args::duration;

const HELP: &str = "\
EXAMPLES
  sandbox build web -f Dockerfile --context ./app
  sandbox build tools --base debian --step 'useradd app' --step 'USER app' --step 'mkdir ~/work'
  sandbox build web -f Dockerfile --healthcheck 'wget -qO- http://127.0.0.1:8000/'
  id=$(sandbox build web -f Dockerfile --detach)   leave it to the platform
  sandbox build logs -f $id                        and follow it later
  sandbox build cancel $id

RECIPES
  A file is a subset of a Dockerfile: FROM (a template's name), RUN, ENV, ARG, WORKDIR, USER, COPY,
  CMD and ENTRYPOINT, which become a START, HEALTHCHECK, SHELL. Builds have no network: what a step
  installs comes with the base, or by COPY. A --step is a shell command, or
  begins with RUN, ENV, WORKDIR, USER, COPY or START in capitals.
  START runs a process that is running still in what is made. With a healthcheck the template is a
  snapshot with memory, in which it runs at once; without, it is a disk that boots.
  The result of a step is used again where the base and all steps before it are the same.

Ctrl-C cancels the build; a second one leaves it to the platform. Only an administrator may build.
To build a template that is called like one of the commands above: sandbox build --step ... -- ls";

#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true, after_help = HELP)]
pub(in crate::cli) struct Build {
    #[command(subcommand)]
    pub(super) command: Option<BuildCommand>,
    #[command(flatten)]
    pub(super) new: NewBuild,
}

impl Build {
    /// Whether a build is to be run, rather than looked at.
    pub(in crate::cli) const fn is_new(&self) -> bool {
        self.command.is_none()
    }
}

#[derive(Debug, Args)]
pub(super) struct NewBuild {
    /// The template's name; one that is there is replaced once the build succeeds
    #[arg(required = true)]
    pub(super) name: Option<String>,
    /// Read the recipe from this file; - is stdin [default: Dockerfile in the --context folder]
    #[arg(short, long, value_name = "FILE", conflicts_with = "steps")]
    pub(super) file: Option<PathBuf>,
    /// One step of the recipe; may be repeated
    #[arg(long = "step", value_name = "COMMAND", allow_hyphen_values = true)]
    pub(super) steps: Vec<String>,
    /// The template to start from [default: the recipe's FROM, else minimal]
    #[arg(short, long, value_name = "NAME")]
    pub(super) base: Option<String>,
    /// Files for COPY: a folder, but what its .dockerignore leaves out, or a tar archive
    #[arg(short, long, value_name = "PATH")]
    pub(super) context: Option<PathBuf>,
    /// A shell command that exits with 0 once the result works; makes a snapshot with memory
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(super) healthcheck: Option<String>,
    /// Between two checks [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "healthcheck")]
    pub(super) health_interval: Option<Duration>,
    /// How long one check may take [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "healthcheck")]
    pub(super) health_timeout: Option<Duration>,
    /// How long failed checks do not count [default: 0]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "healthcheck")]
    pub(super) health_start_period: Option<Duration>,
    /// Failed checks in a row that are put up with, beyond the first [default: 15]
    #[arg(long, value_name = "COUNT", requires = "healthcheck")]
    pub(super) health_retries: Option<u32>,
    /// Virtual CPUs [default: the base's]
    #[arg(long, value_name = "COUNT")]
    pub(super) vcpus: Option<u32>,
    /// Memory in MiB [default: the base's]
    #[arg(long, value_name = "MB")]
    pub(super) memory_mb: Option<u32>,
    /// Disk in MiB [default: the base's]
    #[arg(long, alias = "disk-mb", value_name = "MB")]
    pub(super) disk_size_mb: Option<u32>,
    /// Run every step although its result may be there already
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Print the build's ID and leave it to the platform
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Say nothing until it is done
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Makes retries safe: one key, one build
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum BuildCommand {
    /// List builds, the newest first
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show what is known of a build, with its steps
    Get {
        /// The build's ID
        #[arg(value_name = "ID")]
        id: BuildId,
    },
    /// Print what a build's steps have printed
    Logs {
        /// Go on until the build ends, and exit with 0 if it succeeds
        #[arg(short, long)]
        follow: bool,
        /// The build's ID
        #[arg(value_name = "ID")]
        id: BuildId,
    },
    /// End builds that wait or run
    Cancel {
        /// The builds' IDs
        #[arg(value_name = "ID", required = true)]
        ids: Vec<BuildId>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Only those that stand so: pending, running, success, failed or cancelled
    #[arg(long, value_parser = status)]
    pub(super) status: Option<BuildStatus>,
    /// Only of this template
    #[arg(short, long)]
    pub(super) name: Option<TemplateName>,
    /// The most to list [default: all]
    #[arg(long, value_name = "COUNT")]
    pub(super) limit: Option<usize>,
    /// Print IDs alone, one a line
    #[arg(short, long)]
    pub(super) quiet: bool,
}

fn status(text: &str) -> Result<BuildStatus, String> {
    let found = BuildStatus::ALL
        .into_iter()
        .find(|status| status.as_str() == text);
    found.ok_or_else(|| {
        let all = BuildStatus::ALL.map(BuildStatus::as_str).join(", ");
        format!("there are {all}")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn build(line: &[&str]) -> Result<Build, clap::Error> {
        let line = [&["sandbox", "build"], line].concat();
        let cli = Cli::try_parse_from(line)?;
        let Command::Build(build) = cli.command else {
            panic!("{cli:?}");
        };
        Ok(*build)
    }

    #[test]
    fn r45_a_name_begins_a_build_and_a_command_is_one() {
        let new = build(&["web", "--step", "-x", "--step", "b"]).unwrap();
        assert!(new.is_new());
        assert_eq!(new.new.name.as_deref(), Some("web"));
        assert_eq!(new.new.steps, ["-x", "b"]);
        let ls = build(&["--json", "ls", "--status", "failed"]).unwrap();
        let Some(BuildCommand::Ls(ls)) = ls.command else {
            panic!("{ls:?}");
        };
        assert_eq!(ls.status, Some(BuildStatus::Failed));
        let odd = build(&["--step", "x", "--", "ls"]).unwrap();
        assert!(odd.is_new());
        assert_eq!(odd.new.name.as_deref(), Some("ls"));
    }

    #[test]
    fn r42_builds_that_make_no_sense_are_refused() {
        for line in [
            &[][..],
            &["web", "--step", "a", "-f", "b"],
            &["web", "--step", "a", "--health-retries", "1"],
            &["ls", "--status", "happy"],
            &["get"],
            &["get", "sb-0190163d-8694-739b-aea5-966c26f8ad91"],
            &["cancel"],
        ] {
            assert!(build(line).is_err(), "{line:?}");
        }
    }
}
