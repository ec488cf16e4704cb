//! A folder of the host as a source. It is read by descriptors that never follow a symbolic link,
//! so that someone who writes to it meanwhile can't have a file from elsewhere read.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, flistxattr, major,
        minor, openat2, readlinkat, statat,
    },
    io::Errno,
};

use super::{
    entry::{Attributes, Content, DeviceKind, Entry, GuestPath, Meta, Node, keeps_xattr, shown},
    error::ImportError,
    stage::Stage,
    tar::{device_node, symlink_target},
};

/// Reads all of `folder`, contents into the stage. Other file systems that are mounted in it are
/// left out, and so is the folder `except`, where the host itself is writing.
pub(super) fn read(
    folder: &Path,
    except: &Path,
    stage: &mut Stage,
) -> Result<Vec<Entry>, ImportError> {
    let unreadable = |error: io::Error| ImportError::bad(format!("can't be read: {error}"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
    let about = rustix::fs::fstat(&root).map_err(|error| unreadable(error.into()))?;
    let except = rustix::fs::stat(except)
        .map_err(|error| ImportError::at("looking at a folder")(error.into()))?;
    let mut walk = Walk {
        root,
        device: about.st_dev,
        except: (except.st_dev, except.st_ino),
        stage,
        entries: Vec::new(),
        names: HashMap::new(),
    };
    let meta = meta(&about, xattrs_of(&walk.root)?);
    walk.entries.push(Entry {
        path: GuestPath::default(),
        meta,
        node: Node::Directory,
    });
    let mut folders = vec![PathBuf::new()];
    while let Some(inside) = folders.pop() {
        walk.folder(&inside, &mut folders)?;
    }
    Ok(walk.entries)
}

struct Walk<'a> {
    root: OwnedFd,
    device: u64,
    except: (u64, u64),
    stage: &'a mut Stage,
    entries: Vec<Entry>,
    /// The first name of each file that has several.
    names: HashMap<u64, GuestPath>,
}

impl Walk<'_> {
    fn folder(&mut self, inside: &Path, folders: &mut Vec<PathBuf>) -> Result<(), ImportError> {
        let fd = self.open(inside, OFlags::DIRECTORY)?;
        let listing = Dir::read_from(&fd).map_err(|error| failed(inside, error))?;
        for found in listing {
            let found = found.map_err(|error| failed(inside, error))?;
            let name = found.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = inside.join(OsStr::from_bytes(name));
            let about = match statat(&fd, found.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(about) => about,
                // It has gone meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(&path, error)),
            };
            self.entry(&fd, &path, &about, folders)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        folder: &OwnedFd,
        inside: &Path,
        about: &Stat,
        folders: &mut Vec<PathBuf>,
    ) -> Result<(), ImportError> {
        let path = GuestPath::parse(inside.as_os_str().as_bytes())
            .map_err(|error| ImportError::bad(error.to_string()))?;
        if (about.st_dev, about.st_ino) == self.except {
            return Ok(());
        }
        let mut xattrs = Vec::new();
        let node = match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => {
                // What is mounted here stays out; the mount point itself belongs to the tree.
                if about.st_dev == self.device {
                    xattrs = xattrs_of(&self.open(inside, OFlags::DIRECTORY)?)?;
                    folders.push(inside.to_path_buf());
                }
                Node::Directory
            }
            _ if about.st_dev != self.device => return Ok(()),
            FileType::RegularFile => {
                if let Some(first) = self.first_name(about, &path) {
                    Node::HardLink(first)
                } else {
                    let file = self.open(inside, OFlags::empty())?;
                    xattrs = xattrs_of(&file)?;
                    Node::File(self.keep(inside, File::from(file))?)
                }
            }
            FileType::Symlink => {
                let name = inside.file_name().unwrap_or_default();
                let target =
                    readlinkat(folder, name, Vec::new()).map_err(|error| failed(inside, error))?;
                Node::Symlink(symlink_target(&path, target.as_bytes())?)
            }
            FileType::Fifo => Node::Fifo,
            FileType::CharacterDevice => device(&path, DeviceKind::Character, about)?,
            FileType::BlockDevice => device(&path, DeviceKind::Block, about)?,
            // Sockets are made anew by those who listen.
            _ => return Ok(()),
        };
        let entry = Entry {
            path,
            meta: meta(about, xattrs),
            node,
        };
        self.stage.hold(&entry)?;
        self.entries.push(entry);
        Ok(())
    }

    /// The name under which a file was read already; otherwise notes this one.
    fn first_name(&mut self, about: &Stat, path: &GuestPath) -> Option<GuestPath> {
        if about.st_nlink < 2 {
            return None;
        }
        let first = self.names.get(&about.st_ino).cloned();
        if first.is_none() {
            self.names.insert(about.st_ino, path.clone());
        }
        first
    }

    fn open(&self, inside: &Path, flags: OFlags) -> Result<OwnedFd, ImportError> {
        let inside_or_root = if inside.as_os_str().is_empty() {
            Path::new(".")
        } else {
            inside
        };
        openat2(
            &self.root,
            inside_or_root,
            // A file that has become a pipe meanwhile must not hold this up.
            flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(|error| failed(inside, error))
    }

    /// Keeps a file's content, extent by extent where it has holes.
    fn keep(&mut self, inside: &Path, mut file: File) -> Result<Content, ImportError> {
        let unreadable = |error: io::Error| {
            ImportError::bad(format!("{} can't be read: {error}", shown_path(inside)))
        };
        let about = file.metadata().map_err(unreadable)?;
        if !about.is_file() {
            return Err(ImportError::bad(format!(
                "{} has changed while it was read",
                shown_path(inside)
            )));
        }
        let size = about.len();
        let mut staged = self.stage.begin()?;
        let mut at = 0;
        while at < size {
            let Some((from, to)) = next_data(&file, at, size).map_err(unreadable)? else {
                break;
            };
            file.seek(SeekFrom::Start(from)).map_err(unreadable)?;
            staged.fill(from, &mut (&mut file).take(to - from), &unreadable)?;
            at = to;
        }
        staged.finish(size)
    }
}

/// The next piece of data at or behind `at`; all of the rest where the file system can't tell.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    let from = match seek(file, SeekFrom::Data(at)) {
        Ok(from) => from,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let to = seek(file, SeekFrom::Hole(from))?.min(size);
    Ok((from < to).then_some((from, to)))
}

fn device(path: &GuestPath, kind: DeviceKind, about: &Stat) -> Result<Node, ImportError> {
    device_node(path, kind, major(about.st_rdev), minor(about.st_rdev))
}

fn meta(about: &Stat, xattrs: Attributes) -> Meta {
    Meta {
        mode: (about.st_mode & 0o7777) as u16,
        uid: owner(about.st_uid, rustix::process::geteuid().as_raw()),
        gid: owner(about.st_gid, rustix::process::getegid().as_raw()),
        mtime_secs: Meta::clamp_mtime(about.st_mtime),
        xattrs,
    }
}

/// An ordinary user can't have files of root: what is the user's own becomes root's.
fn owner(owner: u32, own: u32) -> u32 {
    if owner == own { 0 } else { owner }
}

/// The attributes that a guest has a use for.
fn xattrs_of(file: impl AsFd) -> Result<Attributes, ImportError> {
    /// Linux's own limits, of all names and of one value.
    const BYTES_MAX: usize = 64 * 1024;
    let mut names = vec![0; BYTES_MAX];
    let length = match flistxattr(&file, names.as_mut_slice()) {
        Ok(length) => length,
        // This file system has none.
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(ImportError::at("reading attributes")(error.into())),
    };
    let mut kept = Vec::new();
    for name in names[..length].split(|&byte| byte == 0) {
        if !keeps_xattr(name) {
            continue;
        }
        let mut value = vec![0; BYTES_MAX];
        match fgetxattr(&file, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                kept.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(ImportError::at("reading attributes")(error.into())),
        }
    }
    Ok(kept)
}

fn failed(inside: &Path, error: Errno) -> ImportError {
    ImportError::bad(format!(
        "{} can't be read: {}",
        shown_path(inside),
        io::Error::from(error)
    ))
}

fn shown_path(inside: &Path) -> String {
    format!("/{}", shown(inside.as_os_str().as_bytes()))
}
