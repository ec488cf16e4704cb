//! The cgroup that everything but the agent lives in, so that neither a fork bomb nor a memory hog
//! can take the agent's place.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use super::sys;

const ROOT: &str = "/sys/fs/cgroup";
/// Memory for each process that there may be. The kernel spends some 100 KiB on the smallest, and a
/// machine whose memory is all processes stands still.
const BYTES_PER_PROCESS: u64 = 512 * 1024;
const PIDS_MIN: u64 = 256;
const PIDS_MAX: u64 = 32 * 1024;
/// Of what is free at boot, the part that children can't have. Their limit must come before the
/// machine's own, where the kernel looks long for pages before it kills anyone.
const AGENT_MEMORY_BYTES: u64 = 24 * 1024 * 1024;

/// Makes the cgroup. A kernel without a controller gives less protection and no error.
pub(crate) fn prepare() -> io::Result<OwnedFd> {
    let root = Path::new(ROOT);
    let children = root.join("sandbox");
    for controller in ["+cpu", "+pids", "+memory"] {
        let _ = fs::write(root.join("cgroup.subtree_control"), controller);
    }
    match fs::create_dir(&children) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let pids = (sys::memory_bytes() / BYTES_PER_PROCESS).clamp(PIDS_MIN, PIDS_MAX);
    let _ = fs::write(children.join("pids.max"), pids.to_string());
    let for_children = sys::free_memory_bytes()
        .saturating_sub(AGENT_MEMORY_BYTES)
        .max(sys::memory_bytes() / 2);
    let _ = fs::write(children.join("memory.max"), for_children.to_string());
    Ok(fs::File::open(children)?.into())
}
