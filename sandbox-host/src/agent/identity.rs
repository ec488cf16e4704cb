//! Makes a clone an individual (R16): random pool, clock, host name, machine ID.

use std::{fs, io, os::fd::AsRawFd, path::Path};

use nix::{sys::time::TimeSpec, time::ClockId};
use sandbox_core::guest::GuestError;

use crate::link::protocol::{ENTROPY_MIN_BYTES, Identity, Waking};

const ENTROPY_MAX_BYTES: usize = 4096;

/// Refuses what would not make an individual.
pub(crate) fn check(identity: &Identity) -> Result<(), GuestError> {
    let wrong = |problem: &str| Err(GuestError::Invalid(format!("identity: {problem}")));
    let length = identity.entropy.len();
    if !(ENTROPY_MIN_BYTES..=ENTROPY_MAX_BYTES).contains(&length) {
        return wrong("entropy must be 32 to 4096 bytes");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let hostname = identity.hostname.as_bytes();
    if hostname.is_empty() || hostname.len() > 64 || !hostname.iter().all(|byte| plain(*byte)) {
        return wrong("hostname must be 1 to 64 letters, digits, hyphens or dots");
    }
    if identity.unix_time_us <= 0 {
        return wrong("the time is before 1970");
    }
    Ok(())
}

/// Does it. What the kernel must do is an error where it fails; files are as the image allows.
pub(crate) fn adopt(identity: &Identity) -> Result<(), GuestError> {
    wake(&Waking {
        entropy: identity.entropy.clone(),
        unix_time_us: identity.unix_time_us,
    })?;
    nix::unistd::sethostname(&identity.hostname)
        .map_err(|error| failed("set the host name", &error.into()))?;
    // An image may lack these files or keep them read-only; nothing depends on them here.
    let machine_id: String = identity
        .machine_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let _ = write_regular("/etc/machine-id", &format!("{machine_id}\n"));
    let _ = write_regular("/etc/hostname", &format!("{}\n", identity.hostname));
    let hosts = fs::read("/etc/hosts").unwrap_or_default();
    if let Some(hosts) = with_own_name(&String::from_utf8_lossy(&hosts), &identity.hostname) {
        let _ = write_regular("/etc/hosts", &hosts);
    }
    Ok(())
}

/// What a machine needs that goes on after a while: new entropy, and the time.
pub(crate) fn wake(waking: &Waking) -> Result<(), GuestError> {
    mix_entropy(&waking.entropy).map_err(|error| failed("mix in entropy", &error))?;
    let time = TimeSpec::new(
        waking.unix_time_us / 1_000_000,
        waking.unix_time_us % 1_000_000 * 1000,
    );
    nix::time::clock_settime(ClockId::CLOCK_REALTIME, time)
        .map_err(|error| failed("set the clock", &error.into()))
}

fn failed(what: &str, error: &io::Error) -> GuestError {
    GuestError::Invalid(format!("identity: cannot {what}: {error}"))
}

/// Writes a file of `/etc` that is a regular file or not there.
fn write_regular(path: &str, content: &str) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        fs::remove_file(path)?;
    }
    if let Some(folder) = Path::new(path).parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}

/// Marks the line that is ours, so that the next clone's name takes its place.
const OWN_LINE: &str = "# this sandbox";

/// `/etc/hosts` with the machine's own name in it; `None` where it is there already.
fn with_own_name(hosts: &str, hostname: &str) -> Option<String> {
    let names_us = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace().skip(1).any(|name| name == hostname)
    };
    if hosts.lines().any(names_us) {
        return None;
    }
    let mut content: String = hosts
        .lines()
        .filter(|line| !line.ends_with(OWN_LINE))
        .flat_map(|line| [line, "\n"])
        .collect();
    if !hosts.lines().any(|line| line.contains("localhost")) {
        content.push_str("127.0.0.1 localhost\n::1 localhost\n");
    }
    content.push_str(&format!("127.0.1.1 {hostname} {OWN_LINE}\n"));
    Some(content)
}

/// Credits the kernel's pool with these bytes and has it draw new keys from it at once.
fn mix_entropy(entropy: &[u8]) -> io::Result<()> {
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    let random = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    // `struct rand_pool_info`: bits of entropy, bytes, and the bytes.
    let bytes = entropy.len() as u32;
    let mut pool = Vec::with_capacity(8 + entropy.len());
    pool.extend_from_slice(&(bytes * 8).to_ne_bytes());
    pool.extend_from_slice(&bytes.to_ne_bytes());
    pool.extend_from_slice(entropy);
    // SAFETY: reads the structure laid out above, whose length is in it.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, pool.as_ptr()) };
    if added < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes no argument.
    if unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            hostname: "box-1".into(),
            machine_id: [7; 16],
            entropy: vec![1; 32].into(),
            unix_time_us: 1,
            env: Default::default(),
        }
    }

    #[test]
    fn r16_an_identity_without_enough_entropy_or_a_name_is_refused() {
        assert_eq!(check(&identity()), Ok(()));
        for wrong in [
            Identity {
                entropy: vec![1; 31].into(),
                ..identity()
            },
            Identity {
                hostname: String::new(),
                ..identity()
            },
            Identity {
                hostname: "a b".into(),
                ..identity()
            },
            Identity {
                hostname: "x\n".into(),
                ..identity()
            },
            Identity {
                unix_time_us: 0,
                ..identity()
            },
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn r16_a_clone_of_a_clone_has_one_name_in_hosts() {
        let image = "127.0.0.1 localhost\n10.0.0.1 other # box-2\n";
        let first = with_own_name(image, "box-1").unwrap();
        assert!(first.starts_with(image));
        assert_eq!(with_own_name(&first, "box-1"), None);
        let second = with_own_name(&first, "box-2").unwrap();
        assert!(second.contains("127.0.1.1 box-2") && !second.contains("box-1"));
    }

    #[test]
    fn an_empty_hosts_file_gets_localhost_too() {
        let hosts = with_own_name("", "box-1").unwrap();
        assert!(hosts.contains("127.0.0.1 localhost\n"));
    }
}
