//! From the kernel's hand-over to a usable machine: the initramfs holds this program and modules,
//! the root file system is on the first disk.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::mount::{MsFlags, mount};

use super::{cgroup, complain, port, sys};

const MODULES: &str = "/modules";
const ROOT_DEVICE: &str = "/dev/vda";
const NEW_ROOT: &str = "/sysroot";
/// How long devices may take to appear.
const DEVICE_WAIT: Duration = Duration::from_secs(10);
const POLL_MS: u16 = 5;

/// Why the machine can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("cannot mount {what} on {target}: {error}")]
    Mount {
        what: String,
        target: String,
        error: nix::Error,
    },
    #[error("cannot load module {name}: {error}")]
    Module { name: String, error: io::Error },
    #[error("{what} did not appear within {} s", DEVICE_WAIT.as_secs())]
    NoDevice { what: &'static str },
    #[error("cannot change to the root disk: {0}")]
    SwitchRoot(io::Error),
    #[error("cannot make a cgroup: {0}")]
    Cgroup(io::Error),
    /// The end of a guest that was booted only to see whether it boots.
    #[error("probe ok")]
    ProbeOk,
}

/// A usable machine.
pub(crate) struct Booted {
    pub(crate) cgroup: OwnedFd,
    pub(crate) port: PathBuf,
}

pub(crate) fn boot() -> Result<Booted, BootError> {
    mount_on(
        "devtmpfs",
        "/dev",
        "devtmpfs",
        MsFlags::MS_NOSUID,
        "mode=755",
    )?;
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount_on("proc", "/proc", "proc", closed, "")?;
    mount_on("sysfs", "/sys", "sysfs", closed, "")?;
    if is_probe() {
        // The word that the host waits for: a guest gets this far here.
        return Err(BootError::ProbeOk);
    }
    load_modules()?;
    wait_for("the root disk", || {
        Path::new(ROOT_DEVICE).exists().then_some(())
    })?;
    mount_on(ROOT_DEVICE, NEW_ROOT, "ext4", MsFlags::MS_NOATIME, "")?;
    switch_root()?;
    let tmpfs = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_on(
        "devpts",
        "/dev/pts",
        "devpts",
        MsFlags::MS_NOSUID,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    mount_on("tmpfs", "/dev/shm", "tmpfs", tmpfs, "mode=1777")?;
    mount_on("tmpfs", "/run", "tmpfs", tmpfs, "mode=755")?;
    if !Path::new("/tmp").exists() {
        mount_on("tmpfs", "/tmp", "tmpfs", tmpfs, "mode=1777")?;
    }
    mount_on("cgroup2", "/sys/fs/cgroup", "cgroup2", closed, "")?;
    let cgroup = cgroup::prepare().map_err(BootError::Cgroup)?;
    link_standard_names();
    bring_up_loopback();
    // The agent must be the last to go; failures cost that and no more.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_NOFILE,
        4096,
        1024 * 1024,
    );
    // Three keys on a console are no way to end a sandbox.
    let _ = nix::sys::reboot::set_cad_enabled(false);
    let port = wait_for("the port to the host", port::find)?;
    wait_for("the port's device", || port.exists().then_some(()))?;
    Ok(Booted { cgroup, port })
}

/// Whether the host asks for no more than a sign of life.
fn is_probe() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|line| {
        line.split_whitespace()
            .any(|word| word == "sandbox.probe=1")
    })
}

/// Mounts; makes the mount point where that is possible. What is mounted already is as good.
fn mount_on(
    what: &str,
    target: &str,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), BootError> {
    // A target that can't be made shows in the mount's own error.
    let _ = fs::create_dir_all(target);
    match mount(Some(what), target, Some(kind), flags, Some(options)) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(error) => Err(BootError::Mount {
            what: what.into(),
            target: target.into(),
            error,
        }),
    }
}

/// Loads every module of the initramfs, in the order of their file names.
fn load_modules() -> Result<(), BootError> {
    let mut modules: Vec<PathBuf> = match fs::read_dir(MODULES) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        // A kernel may have all it needs built in.
        Err(_) => return Ok(()),
    };
    modules.retain(|path| path.extension().is_some_and(|extension| extension == "ko"));
    modules.sort();
    for module in modules {
        load_module(&module).map_err(|error| BootError::Module {
            name: module.display().to_string(),
            error,
        })?;
    }
    Ok(())
}

fn load_module(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    let options = CString::default();
    // SAFETY: a valid descriptor and a terminated string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            options.as_ptr(),
            0,
        )
    };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Built in, or loaded by someone else.
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}

fn wait_for<T>(what: &'static str, find: impl Fn() -> Option<T>) -> Result<T, BootError> {
    let until = Instant::now() + DEVICE_WAIT;
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if Instant::now() >= until {
            return Err(BootError::NoDevice { what });
        }
        sys::pause_ms(POLL_MS);
    }
}

/// Makes the root disk `/`, takes the mounted trees along, and frees the initramfs.
fn switch_root() -> Result<(), BootError> {
    let failed = |error: nix::Error| BootError::SwitchRoot(error.into());
    let none = None::<&str>;
    for tree in ["/dev", "/proc", "/sys"] {
        let target = format!("{NEW_ROOT}{tree}");
        let _ = fs::create_dir_all(&target);
        mount(Some(tree), target.as_str(), none, MsFlags::MS_MOVE, none).map_err(|error| {
            BootError::Mount {
                what: tree.into(),
                target,
                error,
            }
        })?;
    }
    nix::unistd::chdir(NEW_ROOT).map_err(failed)?;
    if let Ok(root) = fs::metadata("/") {
        remove_tree(Path::new("/"), root.dev());
    }
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(failed)?;
    nix::unistd::chroot(".").map_err(failed)?;
    nix::unistd::chdir("/").map_err(failed)
}

/// Removes what is on this device below a directory. Stays off everything mounted there.
fn remove_tree(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.dev() != device {
            continue;
        }
        // What can't be removed costs memory and nothing else.
        if metadata.is_dir() {
            remove_tree(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Names in `/dev` that programs expect and the kernel does not make.
fn link_standard_names() {
    for (target, name) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        // There already is as good.
        let _ = std::os::unix::fs::symlink(target, name);
    }
}

fn bring_up_loopback() {
    if let Err(error) = try_loopback() {
        complain(&format!("no loopback interface: {error}"));
    }
}

fn try_loopback() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: reads one `ifreq` with a terminated name.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
