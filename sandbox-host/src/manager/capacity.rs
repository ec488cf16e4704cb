//! What this machine can hold.

use sandbox_core::{host::HostError, size::MachineSize};

/// The host's processors.
pub(crate) fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// The host's memory in MiB.
pub(crate) fn memory_mb() -> Result<u64, HostError> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")
        .map_err(|error| HostError::Internal(format!("reading /proc/meminfo: {error}")))?;
    total_mb(&meminfo)
        .ok_or_else(|| HostError::Internal("/proc/meminfo has no MemTotal".to_owned()))
}

fn total_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Refuses what can never run well here: more processors or memory than there are.
pub(crate) fn check(size: MachineSize) -> Result<(), HostError> {
    fits(size, cpus(), memory_mb()?)
}

fn fits(size: MachineSize, cpus: u32, memory_mb: u64) -> Result<(), HostError> {
    if size.vcpus > cpus {
        return Err(HostError::Capacity(format!(
            "it asks for {} virtual CPUs and the host has {cpus}",
            size.vcpus
        )));
    }
    if u64::from(size.memory_mb) > memory_mb {
        return Err(HostError::Capacity(format!(
            "it asks for {} MiB of memory and the host has {memory_mb} MiB",
            size.memory_mb
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_host_has_is_refused_with_both_numbers() {
        let size = MachineSize {
            vcpus: 3,
            memory_mb: 4096,
            disk_size_mb: 64,
        };
        assert!(fits(size, 3, 4096).is_ok());
        assert!(
            fits(size, 2, 4096)
                .unwrap_err()
                .to_string()
                .contains("3 virtual CPUs")
        );
        assert!(
            fits(size, 3, 4095)
                .unwrap_err()
                .to_string()
                .contains("4095 MiB")
        );
    }

    #[test]
    fn total_memory_is_read_in_mib() {
        assert_eq!(
            total_mb("MemTotal:       24684096 kB\nMemFree: 1 kB\n"),
            Some(24105)
        );
        assert_eq!(total_mb("MemFree: 1 kB\n"), None);
    }
}
