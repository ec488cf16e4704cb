//! Sizes of a sandbox's machine: defaults, bounds, and the check of what was asked for.
//!
//! An `_mb` is 2^20 bytes, on the wire and in the store alike.

use serde::{Deserialize, Serialize};

/// Virtual CPUs of a sandbox that asks for none.
pub const DEFAULT_VCPUS: u32 = 1;
/// Memory of a sandbox that asks for none, in MiB.
pub const DEFAULT_MEMORY_MB: u32 = 512;
/// Disk of a sandbox that asks for none, in MiB. The only place where this number stands.
pub const DEFAULT_DISK_SIZE_MB: u32 = 5120;

/// The most virtual CPUs of one sandbox.
pub const VCPUS_MAX: u32 = 64;
/// The least memory in which a guest boots and has room for work, in MiB.
pub const MEMORY_MB_MIN: u32 = 128;
/// The most memory of one sandbox, in MiB (1 TiB).
pub const MEMORY_MB_MAX: u32 = 1024 * 1024;
/// The smallest disk, in MiB.
pub const DISK_SIZE_MB_MIN: u32 = 64;
/// The largest disk, in MiB (4 TiB).
pub const DISK_SIZE_MB_MAX: u32 = 4 * 1024 * 1024;

/// Bytes in a MiB.
pub const MIB: u64 = 1024 * 1024;

/// The size of a sandbox's machine, within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MachineSize {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Disk in MiB: what the guest sees.
    pub disk_size_mb: u32,
}

impl Default for MachineSize {
    fn default() -> Self {
        Self {
            vcpus: DEFAULT_VCPUS,
            memory_mb: DEFAULT_MEMORY_MB,
            disk_size_mb: DEFAULT_DISK_SIZE_MB,
        }
    }
}

/// A size out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {got}; it must be from {min} to {max}")]
pub struct SizeError {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What was asked for.
    pub got: u32,
    /// The least allowed.
    pub min: u32,
    /// The most allowed.
    pub max: u32,
}

impl MachineSize {
    /// Takes each size that was asked for and the default for each that was not.
    ///
    /// # Errors
    /// The first size that is out of bounds.
    pub fn from_request(
        vcpus: Option<u32>,
        memory_mb: Option<u32>,
        disk_size_mb: Option<u32>,
    ) -> Result<Self, SizeError> {
        Self::default().or_asked(vcpus, memory_mb, disk_size_mb)
    }

    /// Takes each size that was asked for and this one's for each that was not.
    ///
    /// # Errors
    /// The first size that was asked for and is out of bounds.
    pub fn or_asked(
        self,
        vcpus: Option<u32>,
        memory_mb: Option<u32>,
        disk_size_mb: Option<u32>,
    ) -> Result<Self, SizeError> {
        let within = |field, asked: Option<u32>, otherwise, min, max| match asked {
            None => Ok(otherwise),
            Some(got) if (min..=max).contains(&got) => Ok(got),
            Some(got) => Err(SizeError {
                field,
                got,
                min,
                max,
            }),
        };
        Ok(Self {
            vcpus: within("vcpus", vcpus, self.vcpus, 1, VCPUS_MAX)?,
            memory_mb: within(
                "memory_mb",
                memory_mb,
                self.memory_mb,
                MEMORY_MB_MIN,
                MEMORY_MB_MAX,
            )?,
            disk_size_mb: within(
                "disk_size_mb",
                disk_size_mb,
                self.disk_size_mb,
                DISK_SIZE_MB_MIN,
                DISK_SIZE_MB_MAX,
            )?,
        })
    }

    /// Memory in bytes.
    #[must_use]
    pub const fn memory_bytes(self) -> u64 {
        self.memory_mb as u64 * MIB
    }

    /// Disk in bytes.
    #[must_use]
    pub const fn disk_bytes(self) -> u64 {
        self.disk_size_mb as u64 * MIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r4_defaults_are_one_cpu_half_a_gib_and_five_gib_of_disk() {
        let size = MachineSize::from_request(None, None, None).unwrap();
        assert_eq!(
            (size.vcpus, size.memory_mb, size.disk_size_mb),
            (1, 512, 5120)
        );
        assert_eq!(size, MachineSize::default());
    }

    #[test]
    fn absurd_sizes_name_the_field_and_its_bounds() {
        for (vcpus, memory, disk, field) in [
            (Some(0), None, None, "vcpus"),
            (Some(u32::MAX), None, None, "vcpus"),
            (None, Some(1), None, "memory_mb"),
            (None, Some(u32::MAX), None, "memory_mb"),
            (None, None, Some(0), "disk_size_mb"),
            (None, None, Some(u32::MAX), "disk_size_mb"),
        ] {
            let error = MachineSize::from_request(vcpus, memory, disk).unwrap_err();
            assert_eq!(error.field, field);
            assert!(error.to_string().contains("must be from"));
        }
    }
}
