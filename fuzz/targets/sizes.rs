//! R17: a machine's size is what was asked for, the default where nothing was, and never out of
//! bounds. The bounds are written down here once more, as a second opinion.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_core::size::MachineSize;

/// Each field's name, default and bounds.
const FIELDS: [(&str, u32, std::ops::RangeInclusive<u32>); 3] = [
    ("vcpus", 1, 1..=64),
    ("memory_mb", 512, 128..=1 << 20),
    ("disk_size_mb", 5120, 64..=4 << 20),
];

fuzz_target!(|data: [u8; 13]| {
    let [present, numbers @ ..] = data;
    let asked: [Option<u32>; 3] = std::array::from_fn(|field| {
        let bytes = std::array::from_fn(|byte| numbers[field * 4 + byte]);
        (present >> field & 1 == 1).then_some(u32::from_le_bytes(bytes))
    });
    let first_bad = FIELDS
        .iter()
        .zip(asked)
        .find(|((_, _, bounds), asked)| asked.is_some_and(|asked| !bounds.contains(&asked)));

    let [vcpus, memory_mb, disk_size_mb] = asked;
    match MachineSize::from_request(vcpus, memory_mb, disk_size_mb) {
        Ok(size) => {
            assert!(first_bad.is_none());
            let got = [size.vcpus, size.memory_mb, size.disk_size_mb];
            for (((_, default, _), asked), got) in FIELDS.iter().zip(asked).zip(got) {
                assert_eq!(got, asked.unwrap_or(*default));
            }
            assert_eq!(size.memory_bytes() >> 20, u64::from(size.memory_mb));
            assert_eq!(size.disk_bytes() >> 20, u64::from(size.disk_size_mb));
        }
        Err(error) => {
            let Some(((name, _, bounds), asked)) = first_bad else {
                panic!("refused without a reason: {error}");
            };
            assert_eq!(error.field, *name);
            assert_eq!(Some(error.got), asked);
            assert_eq!(error.min..=error.max, *bounds);
        }
    }
});
