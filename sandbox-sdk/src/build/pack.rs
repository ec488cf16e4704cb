//! A folder as an archive.
//!
//! Names come in order, and owners and times are left out, so that the same files make the same
//! archive and are uploaded as the same context.

use std::{
    fs::{self, FileType, Metadata},
    io::{self, Read as _, Write},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sandbox_core::{build::CONTEXT_MAX_BYTES, error::Error};
use tar::{Builder, EntryType, Header};

use super::{context::too_large, ignore::Ignored};
use crate::Result;

const IGNORE_FILE: &str = ".dockerignore";
/// How deep folders may lie in one another.
const DEPTH_MAX: usize = 128;

/// Packs a folder, but what its `.dockerignore` leaves out.
pub(super) async fn pack(folder: PathBuf) -> Result<Bytes> {
    let packing = tokio::task::spawn_blocking(move || pack_now(&folder));
    let packed = packing.await;
    packed.map_err(|error| Error::Internal(format!("packing the context: {error}")))?
}

fn pack_now(folder: &Path) -> Result<Bytes> {
    let ignored = match fs::read_to_string(folder.join(IGNORE_FILE)) {
        Ok(text) => Ignored::read(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ignored::default(),
        Err(error) => return Err(bad(&folder.join(IGNORE_FILE), &error)),
    };
    let archive = GzEncoder::new(Bounded(Vec::new()), Compression::fast());
    let mut packing = Packing {
        ignored,
        archive: Builder::new(archive),
    };
    packing.folder(folder, &mut Vec::new())?;
    let archive = packing.archive.into_inner().and_then(GzEncoder::finish);
    let Bounded(archive) = archive.map_err(|error| bad(folder, &error))?;
    Ok(archive.into())
}

fn bad(path: &Path, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return too_large();
    }
    Error::InvalidRequest(format!("the context: {}: {error}", path.display()))
}

struct Packing {
    ignored: Ignored,
    archive: Builder<GzEncoder<Bounded>>,
}

impl Packing {
    /// Takes what is in a folder, which lies at `names` in the context.
    fn folder(&mut self, folder: &Path, names: &mut Vec<String>) -> Result<()> {
        if names.len() > DEPTH_MAX {
            return Err(bad(folder, &io::Error::other("too deep")));
        }
        let entries = fs::read_dir(folder).map_err(|error| bad(folder, &error))?;
        let mut inside = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| bad(folder, &error))?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| bad(&entry.path(), &io::Error::other("the name is not UTF-8")))?;
            inside.push(name);
        }
        inside.sort_unstable();
        for name in inside {
            let path = folder.join(&name);
            names.push(name);
            let left_out = self.ignored.leaves_out(names);
            if !left_out || self.ignored.takes_back() {
                self.one(&path, names, left_out)?;
            }
            names.pop();
        }
        Ok(())
    }

    /// Takes what is at a path; of a folder that is left out, only what is inside and is not.
    fn one(&mut self, path: &Path, names: &mut Vec<String>, left_out: bool) -> Result<()> {
        let about = fs::symlink_metadata(path).map_err(|error| bad(path, &error))?;
        let kind = about.file_type();
        if !left_out {
            self.put(path, names, &about)
                .map_err(|error| bad(path, &error))?;
        }
        if kind.is_dir() {
            self.folder(path, names)?;
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, names: &[String], about: &Metadata) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(about.permissions().mode() & 0o7777);
        header.set_size(0);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let kind = about.file_type();
        let name = names.join("/");
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.archive.append_data(&mut header, name, io::empty())
        } else if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(path)?;
            self.archive.append_link(&mut header, name, target)
        } else if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            let size = about.len();
            header.set_size(size);
            let mut file = fs::File::open(path)?.take(size);
            self.archive.append_data(&mut header, name, &mut file)?;
            match file.limit() {
                0 => Ok(()),
                _ => Err(io::Error::other("it became shorter while it was read")),
            }
        } else {
            refuse(kind)
        }
    }
}

/// Sockets are left out, as nobody means them.
fn refuse(kind: FileType) -> io::Result<()> {
    if kind.is_socket() {
        return Ok(());
    }
    let words = format!("neither a file, nor a folder, nor a link; name it in {IGNORE_FILE}");
    Err(io::Error::other(words))
}

/// Takes no more than a context may have.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.0.len() + data.len() > CONTEXT_MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use sandbox_core::build::context::{Context, Destination, Put};

    use super::*;

    /// The paths that a copy of all would put, with a word on each.
    fn put(archive: Bytes) -> Vec<String> {
        let context = Context::read(archive).unwrap();
        let puts = context
            .select(&["."], &Destination::new("/c/", "/"))
            .unwrap();
        let word = |put: &Put| match put {
            Put::Dir { path, mode, .. } => format!("{path}/ {mode:o}"),
            Put::File {
                path, mode, data, ..
            } => {
                format!("{path} {mode:o} {}", String::from_utf8_lossy(data))
            }
            Put::Symlink { path, target, .. } => format!("{path} -> {target}"),
        };
        puts.iter().map(word).collect()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("app/deep")).unwrap();
        fs::create_dir_all(at("cache/keep")).unwrap();
        for (name, content) in [
            ("app/main", "run"),
            ("app/deep/data", "1"),
            ("app/noise.log", "x"),
            ("cache/blob", "x"),
            ("cache/keep/this", "2"),
            (IGNORE_FILE, "**/*.log\ncache\n!cache/keep\n.dockerignore\n"),
        ] {
            fs::write(at(name), content).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        for name in ["app", "app/deep", "cache/keep"] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o750)).unwrap();
        }
        symlink("main", at("app/link")).unwrap();
        folder
    }

    #[tokio::test]
    async fn a_folder_is_packed_but_what_its_dockerignore_leaves_out() {
        let folder = folder();
        let archive = pack(folder.path().to_owned()).await.unwrap();
        let there = put(archive.clone());
        for line in [
            "/c/app/main 640 run",
            "/c/app/deep/data 640 1",
            "/c/app/link -> main",
            "/c/cache/keep/this 640 2",
        ] {
            assert!(there.iter().any(|it| it == line), "{line}: {there:?}");
        }
        for name in ["noise", "blob", "dockerignore"] {
            assert!(!there.iter().any(|it| it.contains(name)), "{there:?}");
        }
        // The same files at another time make the same archive.
        fs::write(folder.path().join("app/main"), "run").unwrap();
        assert_eq!(pack(folder.path().to_owned()).await.unwrap(), archive);
    }

    #[tokio::test]
    async fn what_can_t_be_packed_is_named() {
        let folder = folder();
        let missing = pack(folder.path().join("none")).await.unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = pack(folder.path().to_owned()).await.unwrap_err();
        assert!(refused.to_string().contains("pipe"), "{refused}");
        assert!(matches!(refused, Error::InvalidRequest(_)), "{refused:?}");
    }
}
