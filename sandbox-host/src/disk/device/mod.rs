//! Small clients of the kernel's block devices: loop and device-mapper.

pub(super) mod dm;
pub(super) mod loops;
