//! Which disk backend a data folder gets by itself, and why not the others.

use std::path::Path;

use sandbox_core::disk::{DiskBackend, DiskChoice, DiskFacts};

use super::{
    MEND_QEMU,
    doctor::{Check, note, ok},
    find_program,
};
use crate::disk::probe;

/// Looks at a folder that is there. Leaves nothing in it.
pub(super) fn checks(folder: &Path) -> Vec<Check> {
    let qemu_img = find_program("qemu-img", MEND_QEMU).unwrap_or_default();
    from_facts(probe(folder, &[folder], &qemu_img), folder)
}

fn from_facts(facts: DiskFacts, folder: &Path) -> Vec<Check> {
    let chosen = match facts.choose(DiskChoice::Auto) {
        Ok(backend) => ok(
            "disk backend",
            format!("{backend}, for {}", folder.display()),
        ),
        Err(error) => note("disk backend", error.to_string(), MEND_QEMU),
    };
    let reflink = match facts.usable(DiskBackend::Reflink) {
        Ok(_) => ok("reflink", "new disks share their image's blocks".to_owned()),
        Err(error) => note(
            "reflink",
            error.missing.to_owned(),
            "put the data folder on such a file system; qcow2 does until then",
        ),
    };
    let dm_snapshot = match facts.usable(DiskBackend::DmSnapshot) {
        Ok(_) => ok(
            "dm-snapshot",
            "can be used; only where it is asked for".to_owned(),
        ),
        Err(error) => note(
            "dm-snapshot",
            format!("{}; used only where it is asked for", error.missing),
            "modprobe -a loop dm-snapshot, and run the host as root",
        ),
    };
    vec![chosen, reflink, dm_snapshot]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Verdict;

    #[test]
    fn r48_the_choice_is_told_with_what_speaks_against_the_others() {
        let facts = DiskFacts {
            qemu_img: true,
            ..DiskFacts::default()
        };
        let [chosen, reflink, dm_snapshot] =
            <[Check; 3]>::try_from(from_facts(facts, Path::new("/data"))).unwrap();
        assert_eq!(chosen.found, "qcow2, for /data");
        assert!(reflink.found.contains("can't share blocks"), "{reflink:?}");
        assert!(dm_snapshot.mend.unwrap().contains("modprobe"));
        let all = DiskFacts {
            reflink: true,
            dm_snapshot: true,
            loop_devices: true,
            ..facts
        };
        let checks = from_facts(all, Path::new("/data"));
        assert_eq!(checks[0].found, "reflink, for /data");
        assert!(checks.iter().all(|check| check.verdict == Verdict::Ok));
    }

    #[test]
    fn r48_looking_at_a_folder_leaves_nothing_in_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(checks(folder.path()).len(), 3);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
