//! One process at a time on a data folder.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::Path,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use sandbox_core::host::HostError;
use tokio::time::{Instant, sleep};

/// How long a process that was killed may keep the lock: as long as it takes a child that it had
/// just forked to become another program. That child's machine is found once it is.
const DEAD_HOLDER_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Why a data folder is none.
pub(super) fn unusable(data: &Path, error: &io::Error) -> HostError {
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    HostError::NotSetUp {
        missing: format!("the data folder {} can't be used: {error}", data.display()),
        mend: "make it a folder that this user may write to, or name another".to_owned(),
    }
}

/// The right to use a data folder, which one process at a time has. The kernel drops it with the
/// process, however that ends, and with the children that it was about to start.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes it.
    ///
    /// # Errors
    /// [`HostError::Unavailable`], with the process that has it, where another one does;
    /// [`HostError::NotSetUp`] where the folder can't be written to.
    pub async fn take(data: &Path) -> Result<Self, HostError> {
        let internal =
            |error: io::Error| HostError::Internal(format!("locking the data folder: {error}"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(data.join("lock"))
            .map_err(|error| unusable(data, &error))?;
        let until = Instant::now() + DEAD_HOLDER_LIMIT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(internal(error.into())),
            }
            let holder = holder(&mut file).map_err(internal)?;
            if Instant::now() > until || holder.parse().is_ok_and(lives) {
                return Err(HostError::Unavailable(format!(
                    "the data folder {} is in use by another process (pid {holder}); end that one \
                     or choose another folder",
                    data.display(),
                )));
            }
            sleep(POLL).await;
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .map_err(internal)?;
        // A full disk must not keep a host from starting: the number is for people, and for the
        // patience with the dead.
        let _ = write!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

/// The process that took the lock last, as it wrote that down.
fn holder(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Whether there is such a process, and it has not ended.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        !matches!(behind_name.trim_start().chars().next(), Some('Z' | 'X'))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::manager::{HostConfig, HostManager};

    #[tokio::test]
    async fn a_second_process_is_refused_at_once_and_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).await.unwrap();
        let begun = Instant::now();
        let refused = FolderLock::take(folder.path()).await.unwrap_err();
        let pid = std::process::id();
        assert!(
            refused.to_string().contains(&format!("pid {pid}")),
            "{refused}"
        );
        assert!(begun.elapsed() < DEAD_HOLDER_LIMIT / 2);
        drop(lock);
        FolderLock::take(folder.path()).await.unwrap();
    }

    #[tokio::test]
    async fn r36_a_child_of_a_killed_process_that_is_just_being_started_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        // The child inherits the lock, as every child does until it becomes another program.
        let line = "exec 9>>lock; flock -n 9; printf %s $$ > lock; sleep 0.7 & kill -9 $$";
        let mut shell = Command::new("sh");
        let ended = shell.args(["-c", line]).current_dir(folder.path()).status();
        assert!(!ended.unwrap().success());
        let begun = Instant::now();
        FolderLock::take(folder.path()).await.unwrap();
        assert!(begun.elapsed() > Duration::from_millis(300), "it was held");
    }

    #[tokio::test]
    async fn a_data_folder_that_can_t_be_one_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        let locked = folder.path().join("locked");
        fs::create_dir_all(locked.join("lock")).unwrap();
        for data in [file.clone(), file.join("below"), locked] {
            let refused = HostManager::open(HostConfig::new(&data)).await;
            let error = refused.err().unwrap();
            assert!(matches!(error, HostError::NotSetUp { .. }), "{error}");
            let words = error.to_string();
            assert!(words.contains(data.to_str().unwrap()), "{words}");
            assert!(words.contains("or name another"), "{words}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
}
