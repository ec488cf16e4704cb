//! What a test must not leave behind.
//!
//! Other tests and people run machines on the same host at the same time, so everything is told by
//! the test's own folder: processes that work in it or name it, mounts and loop devices on it,
//! sockets and half-made things in it, and what this process itself still holds open.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A destroyed machine is gone in milliseconds; a busy host takes longer to say so.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Watches a test's folder. [`assert_none`](Self::assert_none) fails the test that left something;
/// dropping ends what a failed test has left running.
#[derive(Debug)]
#[must_use = "a test that leaves something must fail"]
pub struct Leftovers {
    folder: PathBuf,
    /// What was there before the test.
    before: BTreeSet<String>,
}

impl Leftovers {
    /// Begins to watch a folder that exists.
    ///
    /// # Panics
    /// When the folder can't be found.
    pub fn watch(folder: &Path) -> Self {
        let folder = folder.canonicalize().expect("the test's folder exists");
        let before = all(&folder);
        Self { folder, before }
    }

    /// What is there now and was not before, in words.
    #[must_use]
    pub fn found(&self) -> Vec<String> {
        let now = all(&self.folder);
        now.difference(&self.before).cloned().collect()
    }

    /// Process IDs of the machines that run in the folder.
    #[must_use]
    pub fn machine_pids(&self) -> Vec<i32> {
        machines(&self.folder)
    }

    /// Fails unless everything that was not there before is gone, or goes within seconds.
    ///
    /// # Panics
    /// With a list of what is left.
    pub async fn assert_none(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.found();
            if found.is_empty() {
                return;
            }
            assert!(
                Instant::now() < until,
                "the test left something behind: {found:#?}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends every process that belongs to the folder. A test that goes well has none left.
    fn end_processes(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = machines(&self.folder);
            if left.is_empty() || Instant::now() > until {
                return;
            }
            for pid in left {
                // Gone already is as good.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.end_processes();
    }
}

fn all(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in processes(folder) {
        found.insert(format!("process {pid}: {}", command_line(pid)));
    }
    for pid in children() {
        found.insert(format!("child {pid}: {}", command_line(pid)));
    }
    held_open(folder, &mut found);
    on_the_system(folder, &mut found);
    in_folder(folder, &mut found);
    found
}

fn process_ids() -> impl Iterator<Item = i32> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

/// Processes that work in the folder, hold a file of it, or name it on their command line.
fn processes(folder: &Path) -> Vec<i32> {
    let name = folder.to_string_lossy();
    process_ids()
        .filter(|pid| {
            command_line(*pid).contains(&*name)
                || link(&format!("/proc/{pid}/cwd")).is_some_and(|cwd| cwd.starts_with(folder))
                || open_files(*pid).any(|file| file.starts_with(folder))
        })
        .collect()
}

/// Those of them that are machines.
fn machines(folder: &Path) -> Vec<i32> {
    let mut found = processes(folder);
    found.retain(|pid| command_line(*pid).contains("qemu-system"));
    found
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

fn link(path: &str) -> Option<PathBuf> {
    fs::read_link(path).ok()
}

fn open_files(pid: i32) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
}

/// This process's own children, those that wait to be reaped among them.
fn children() -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            list.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    found
}

/// Files of the folder and sockets that this process has open.
fn held_open(folder: &Path, found: &mut BTreeSet<String>) {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    for file in open_files(own) {
        let text = file.to_string_lossy();
        if file.starts_with(folder) || text.starts_with("socket:") {
            found.insert(format!("held open: {text}"));
        }
    }
}

fn on_the_system(folder: &Path, found: &mut BTreeSet<String>) {
    let name = folder.to_string_lossy();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts.lines().filter(|line| line.contains(&*name)) {
        found.insert(format!("mount: {mount}"));
    }
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(device.path().join("loop/backing_file"));
        if backing.is_ok_and(|file| file.contains(&*name)) {
            found.insert(format!("loop device: {}", device.path().display()));
        }
    }
}

/// Machines' folders, half-made things, partial files and sockets.
fn in_folder(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        let of_machine = folder
            .file_name()
            .is_some_and(|parent| parent == "machines");
        if of_machine || kind.is_socket() || name.starts_with('.') || name.contains(".part-") {
            found.insert(format!("file: {}", path.display()));
        }
        // Links into shared images are not this folder's.
        if kind.is_dir() && !of_machine {
            in_folder(&path, found);
        }
    }
}
