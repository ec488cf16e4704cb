//! A Debian system, made anew by `mmdebstrap`, which gives it as a tar archive. As root it works in
//! namespaces of its own, so that its mounts and processes end with it; as an ordinary user it makes
//! them itself, from the ranges in `/etc/subuid`.

use std::{collections::VecDeque, path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use sandbox_core::host::HostError;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::spawn_blocking,
};

use super::{
    entry::{Entry, GuestPath},
    error::ImportError,
    stage::Stage,
    tar::{EndMark, read_entries},
};
use crate::setup::find_program;

/// A slow mirror included.
const TIME_MAX: Duration = Duration::from_secs(30 * 60);
const PACKAGES_MAX: usize = 1000;
/// How many of its last lines an error holds, and how long they may be.
const TAIL_LINES: usize = 8;
const LINE_BYTES_MAX: usize = 500;
const MEND: &str = "apt-get install mmdebstrap";
/// What is copied from the host and is none of a guest's business.
const OF_THE_HOST: [&str; 2] = ["/etc/hostname", "/etc/resolv.conf"];

/// Makes a system of `suite` with `packages`, contents into the stage.
pub(super) async fn read(
    suite: &str,
    packages: &[String],
    mut stage: Stage,
) -> Result<(Vec<Entry>, Stage), ImportError> {
    check(suite, packages)?;
    let mut running = Running(
        command(suite, packages, stage.folder())?
            .spawn()
            .map_err(ImportError::at("starting mmdebstrap"))?,
    );
    let (Some(stdout), Some(stderr)) = (running.0.stdout.take(), running.0.stderr.take()) else {
        return Err(ImportError::at("starting mmdebstrap")(
            std::io::ErrorKind::BrokenPipe.into(),
        ));
    };
    let archive = stdout
        .into_owned_fd()
        .map_err(ImportError::at("reading from mmdebstrap"))?;
    let reading = spawn_blocking(move || {
        let archive = std::fs::File::from(archive);
        let entries = read_entries(archive, EndMark::Required, &mut stage);
        entries.map(|entries| (entries, stage))
    });
    let work = async {
        let (words, read) = tokio::join!(tail(stderr), reading);
        (running.0.wait().await, words, read)
    };
    let (status, words, read) = tokio::time::timeout(TIME_MAX, work).await.map_err(|_| {
        let minutes = TIME_MAX.as_secs() / 60;
        ImportError::bad(format!(
            "Debian {suite} was not made within {minutes} minutes"
        ))
    })?;
    let status = status.map_err(ImportError::at("waiting for mmdebstrap"))?;
    let read = read.map_err(|error| {
        ImportError::at("reading from mmdebstrap")(std::io::Error::other(error))
    })?;
    match read {
        // The host's own trouble comes first: it ends mmdebstrap too.
        Err(error @ (ImportError::Io { .. } | ImportError::Host(_) | ImportError::Stopped)) => {
            Err(error)
        }
        _ if !status.success() => Err(ImportError::bad(format!(
            "Debian {suite} can't be made. mmdebstrap's last words: {words}"
        ))),
        Err(error) => Err(error),
        Ok((mut entries, stage)) => {
            entries.retain(|entry| !is_of_the_host(&entry.path));
            Ok((entries, stage))
        }
    }
}

fn is_of_the_host(path: &GuestPath) -> bool {
    OF_THE_HOST.contains(&path.to_string().as_str())
}

/// Names as Debian has them, and nothing that could be an option, a path or an address.
fn check(suite: &str, packages: &[String]) -> Result<(), ImportError> {
    let is_name = |name: &str, further: &str| {
        name.len() <= 100
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || further.contains(c))
    };
    if !is_name(suite, "-") {
        return Err(ImportError::bad(format!(
            "{suite:?} is no release of Debian, such as \"bookworm\""
        )));
    }
    if packages.len() > PACKAGES_MAX {
        return Err(ImportError::bad(format!(
            "more than {PACKAGES_MAX} packages"
        )));
    }
    match packages.iter().find(|name| !is_name(name, "+-.")) {
        Some(name) => Err(ImportError::bad(format!("{name:?} is no Debian package"))),
        None => Ok(()),
    }
}

fn command(suite: &str, packages: &[String], folder: &Path) -> Result<Command, HostError> {
    let mmdebstrap = find_program("mmdebstrap", MEND)?;
    let mut command = if nix::unistd::geteuid().is_root() {
        // It ends with all it started when it is killed.
        let mut command = Command::new(find_program("unshare", "apt-get install util-linux")?);
        command.args(["--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]);
        command.arg(mmdebstrap).arg("--mode=root");
        command
    } else {
        let mut command = Command::new(mmdebstrap);
        command.arg("--mode=unshare");
        command
    };
    command.args(["--variant=minbase", "--format=tar"]);
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    command
        .args([suite, "-"])
        .env("TMPDIR", folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    Ok(command)
}

/// The bootstrap, which ends when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // None once it was waited for.
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Gone meanwhile is as good.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The last lines, in one.
async fn tail(stream: impl AsyncRead + Unpin) -> String {
    let mut lines = BufReader::new(stream).split(b'\n');
    let mut last = VecDeque::new();
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        // A line that is drawn over counts as it ended.
        let line = line.rsplit(|&byte| byte == b'\r').next().unwrap_or(line);
        let text = super::entry::shown(&line[..line.len().min(LINE_BYTES_MAX)]);
        if text.trim().is_empty() {
            continue;
        }
        if last.len() == TAIL_LINES {
            last.pop_front();
        }
        last.push_back(text);
    }
    Vec::from(last).join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_never_given_to_a_program() {
        for suite in [
            "",
            "--help",
            "../x",
            "bookworm main",
            "http://x",
            "-",
            "Bookworm",
        ] {
            assert!(check(suite, &[]).is_err(), "{suite}");
        }
        for package in [
            "",
            "-x",
            "a,b",
            "a b",
            "./x.deb",
            "?essential",
            "a=1",
            "a/b",
            "Perl",
        ] {
            assert!(
                check("bookworm", &[package.to_owned()]).is_err(),
                "{package}"
            );
        }
        let good = ["python3", "g++", "libstdc++-12-dev", "linux-image-6.1"];
        check("bookworm-backports", &good.map(str::to_owned)).unwrap();
    }

    #[tokio::test]
    async fn of_many_words_the_last_are_kept() {
        let words: String = (0..1000).map(|n| format!("line {n}\n\n")).collect();
        let kept = tail(words.as_bytes()).await;
        assert!(kept.starts_with("line 992 / "), "{kept}");
        assert!(kept.ends_with("line 999"), "{kept}");
    }
}
