//! Copying files and folders into a sandbox and out of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use futures::TryStreamExt;
use indicatif::ProgressBar;
use sandbox_core::{
    error::Error,
    file::{FileKind, FileStat, WriteSpec},
    guest::GuestError,
};
use tokio::io::AsyncWriteExt;

use super::{
    args::Cp,
    failure::Failure,
    place::{Place, base_name, below},
    progress,
    session::Session,
    view,
};
use crate::Sandbox;

pub(super) async fn cp(session: &Session, args: Cp) -> Result<(), Failure> {
    match (args.source, args.target) {
        (Place::Local(from), Place::Guest(id, to)) => {
            let sandbox = session.sandbox(id);
            progress::counting("copied", |bar| async move {
                upload(&sandbox, &from, to, &bar).await
            })
            .await
        }
        (Place::Guest(id, from), Place::Local(to)) => {
            let sandbox = session.sandbox(id);
            progress::counting("copied", |bar| async move {
                download(&sandbox, from, to, &bar).await
            })
            .await
        }
        (Place::Stream, Place::Guest(id, to)) => {
            let sandbox = session.sandbox(id);
            sandbox.files().write_from(&to, tokio::io::stdin()).await?;
            Ok(())
        }
        (Place::Guest(id, from), Place::Stream) => print(&session.sandbox(id), &from).await,
        (Place::Guest(..), Place::Guest(..)) => Err(Failure::Own(
            "copies from sandbox to sandbox go through this machine: copy out, then in".to_owned(),
        )),
        _ => Err(Failure::Own(
            "one of the two must be in a sandbox: write ID:/path".to_owned(),
        )),
    }
}

async fn print(sandbox: &Sandbox, from: &str) -> Result<(), Failure> {
    let mut stdout = tokio::io::stdout();
    let files = sandbox.files();
    let mut pieces = std::pin::pin!(files.read_stream(from));
    while let Some(piece) = pieces.try_next().await? {
        stdout.write_all(&piece).await.map_err(Failure::output)?;
    }
    stdout.flush().await.map_err(Failure::output)
}

/// Whether a path leads to a folder, through links too.
async fn is_folder(sandbox: &Sandbox, path: &str) -> Result<bool, Failure> {
    match sandbox.files().stat(&below(path, ".")).await {
        Ok(stat) => Ok(stat.kind == FileKind::Directory),
        Err(Error::Guest(GuestError::NotFound { .. } | GuestError::WrongKind { .. })) => Ok(false),
        // Such as "not a directory", which has no kind of its own everywhere.
        Err(Error::Guest(GuestError::Io { .. })) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn upload(
    sandbox: &Sandbox,
    from: &Path,
    mut to: String,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let unreadable = |path: &Path| Failure::local(format!("can't read {}", path.display()));
    let metadata = fs::metadata(from).map_err(unreadable(from))?;
    if to.ends_with('/') || is_folder(sandbox, &to).await? {
        let whole = from.canonicalize().map_err(unreadable(from))?;
        let name = whole
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        to = below(&to, &name.unwrap_or_default());
    }
    let mut waiting = vec![(from.to_owned(), to, metadata)];
    while let Some((from, to, metadata)) = waiting.pop() {
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_file() {
            bar.set_message(format!("copying {}", from.display()));
            let file = tokio::fs::File::open(&from)
                .await
                .map_err(unreadable(&from))?;
            let spec = WriteSpec {
                path: to,
                mode: Some(mode),
                create_parents: true,
            };
            let file = bar.wrap_async_read(file);
            sandbox.files().write_with(spec, file).await?;
        } else if metadata.is_dir() {
            sandbox.api.make_dir(sandbox.id(), &to, mode, true).await?;
            for entry in fs::read_dir(&from).map_err(unreadable(&from))? {
                let entry = entry.map_err(unreadable(&from))?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    left_out(&entry.path(), "its name is not UTF-8");
                    continue;
                };
                let metadata = entry.metadata().map_err(unreadable(&entry.path()))?;
                waiting.push((entry.path(), below(&to, &name), metadata));
            }
        } else {
            left_out(&from, "it is no file and no folder");
        }
    }
    Ok(())
}

async fn download(
    sandbox: &Sandbox,
    from: String,
    mut to: PathBuf,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let mut stat = sandbox.files().stat(&from).await?;
    if matches!(stat.kind, FileKind::Symlink { .. }) {
        // What is asked for by name is followed.
        stat.kind = if is_folder(sandbox, &from).await? {
            FileKind::Directory
        } else {
            FileKind::File
        };
        stat.mode = if stat.kind == FileKind::Directory {
            0o755
        } else {
            0o644
        };
    }
    if to.is_dir() {
        let name = base_name(&from).ok_or_else(|| {
            Failure::Own(format!("{from} has no name to go by in {}", to.display()))
        })?;
        to.push(name);
    }
    let mut waiting = vec![(from, to, stat)];
    while let Some((from, to, stat)) = waiting.pop() {
        let unwritable = || Failure::local(format!("can't write {}", to.display()));
        match stat.kind {
            FileKind::File => {
                bar.set_message(format!("copying {}", view::plain(&from)));
                sandbox.files().download(&from, &to).await?;
                bar.inc(stat.size);
                allow(&to, stat.mode).map_err(unwritable())?;
            }
            FileKind::Directory => {
                fs::create_dir_all(&to).map_err(unwritable())?;
                for entry in sandbox.files().list(&from).await? {
                    if !is_a_name(&entry) {
                        left_out(&to, "something in it has a name that can't be used here");
                        continue;
                    }
                    let (from, to) = (below(&from, &entry.name), to.join(&entry.name));
                    waiting.push((from, to, entry));
                }
                // Enough for us to fill it, whatever it is in the sandbox.
                allow(&to, stat.mode | 0o700).map_err(unwritable())?;
            }
            FileKind::Symlink { .. } | FileKind::Other => {
                left_out(Path::new(&from), "it is no file and no folder");
            }
        }
    }
    Ok(())
}

/// Whether a name from a guest stays within its folder and is the file's own.
fn is_a_name(entry: &FileStat) -> bool {
    let name = entry.name.as_str();
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0', char::REPLACEMENT_CHARACTER])
}

/// Sets permissions, without what would give a guest's file powers here.
fn allow(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777))
}

fn left_out(path: &Path, why: &str) {
    view::note(format_args!("left out {}: {why}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_33_a_guest_s_names_never_lead_out_of_the_folder() {
        let named = |name: &str| FileStat {
            name: name.to_owned(),
            kind: FileKind::File,
            size: 0,
            physical_bytes: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            modified_ms: 0,
        };
        for bad in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "../x",
            "a/b",
            "a\0",
            "a\u{fffd}",
        ] {
            assert!(!is_a_name(&named(bad)), "{bad:?}");
        }
        for good in ["a", "...", ".hidden", "with space", "ä"] {
            assert!(is_a_name(&named(good)), "{good:?}");
        }
    }
}
