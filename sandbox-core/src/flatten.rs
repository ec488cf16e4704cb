//! Flattening: a machine's frozen disk becomes an image of its own. What is done in which order, and
//! what undoes each step, as plain data; the host carries it out.
//!
//! ```text
//! frozen disk ──convert──► work file ─► check ─► renew journal ─► shrink ─► trim ─► verify ──publish──► out
//!                             │ any step fails, or nobody waits any more
//!                             ▼
//!                        undone in reverse: no file is left
//! ```
//!
//! The frozen disk is only ever read. Everything else happens to a file that no machine knows, and
//! `out` is there whole or not at all.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::disk::DiskFormat;

/// The most that the journal of a flattened disk takes, in MiB. A journal written by a guest is
/// full of old blocks, which nobody needs; its successor is a hole.
pub const JOURNAL_MB_MAX: u32 = 16;

/// What is flattened, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlattenInputs {
    /// A disk that nobody writes to: a file with its backing files, or a block device.
    pub frozen: PathBuf,
    /// Its format. Never guessed from its content, which is the guest's.
    pub format: DiskFormat,
    /// The file to make.
    pub out: PathBuf,
}

impl FlattenInputs {
    /// The file that is worked on: beside the result, so that a rename publishes it, and with a
    /// leading dot, by which a later start knows what was cut off.
    fn work(&self) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.out.file_name().unwrap_or_default());
        name.push(".part");
        self.out.with_file_name(name)
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Copies what the disk holds to a raw file, holes left out.
    Convert {
        /// The frozen disk.
        from: PathBuf,
        /// Its format.
        format: DiskFormat,
        /// A file that is not there yet.
        to: PathBuf,
    },
    /// Replays the journal, mends what is broken and gives up the blocks that hold no file.
    Check {
        /// The disk.
        disk: PathBuf,
    },
    /// Replaces the journal by an empty one of at most this size.
    RenewJournal {
        /// The disk.
        disk: PathBuf,
        /// In MiB.
        most_mb: u32,
    },
    /// Makes the file system as small as its content.
    Shrink {
        /// The disk.
        disk: PathBuf,
    },
    /// Cuts the file off behind the file system, and gives up blocks of zeros.
    Trim {
        /// The disk.
        disk: PathBuf,
    },
    /// Checks without mending that the file system is whole and ends where the file does.
    Verify {
        /// The disk.
        disk: PathBuf,
    },
    /// Brings the file to disk and gives it its name.
    Publish {
        /// The work file.
        from: PathBuf,
        /// A name that is free.
        to: PathBuf,
    },
}

/// What undoes a step: also one that has failed halfway, and also more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "undo")]
pub enum Undo {
    /// Removes a file, if it is there.
    Remove {
        /// Which.
        file: PathBuf,
    },
}

impl Step {
    /// What undoes it; `None` where it takes nothing that an earlier step did not.
    #[must_use]
    pub fn undo(&self) -> Option<Undo> {
        let file = self.takes()?.to_path_buf();
        Some(Undo::Remove { file })
    }

    /// The file that is there behind this step and was not before.
    #[must_use]
    pub fn takes(&self) -> Option<&Path> {
        match self {
            Self::Convert { to, .. } | Self::Publish { to, .. } => Some(to),
            _ => None,
        }
    }

    /// The file that is gone behind this step.
    #[must_use]
    pub fn releases(&self) -> Option<&Path> {
        match self {
            Self::Publish { from, .. } => Some(from),
            _ => None,
        }
    }

    /// The step in words, as errors name it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Convert { .. } => "copying the disk",
            Self::Check { .. } => "checking the disk",
            Self::RenewJournal { .. } => "renewing the disk's journal",
            Self::Shrink { .. } => "shrinking the disk",
            Self::Trim { .. } => "trimming the disk",
            Self::Verify { .. } => "verifying the disk",
            Self::Publish { .. } => "publishing the disk",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Convert { from, format, to } => write!(
                f,
                "convert {} ({}) to {}",
                from.display(),
                format.as_str(),
                to.display()
            ),
            Self::Check { disk } => write!(f, "check {}", disk.display()),
            Self::RenewJournal { disk, most_mb } => write!(
                f,
                "renew the journal of {}, at most {most_mb} MiB",
                disk.display()
            ),
            Self::Shrink { disk } => write!(f, "shrink {}", disk.display()),
            Self::Trim { disk } => write!(f, "trim {}", disk.display()),
            Self::Verify { disk } => write!(f, "verify {}", disk.display()),
            Self::Publish { from, to } => {
                write!(f, "publish {} as {}", from.display(), to.display())
            }
        }
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Remove { file } = self;
        write!(f, "remove {}", file.display())
    }
}

/// The steps that make an image of a disk: checked, shrunk and sparse.
#[must_use]
pub fn plan(inputs: &FlattenInputs) -> Vec<Step> {
    let work = inputs.work();
    let disk = || work.clone();
    vec![
        convert(inputs),
        Step::Check { disk: disk() },
        Step::RenewJournal {
            disk: disk(),
            most_mb: JOURNAL_MB_MAX,
        },
        Step::Shrink { disk: disk() },
        Step::Trim { disk: disk() },
        Step::Verify { disk: disk() },
        publish(inputs),
    ]
}

/// The steps that copy a disk as it is, for the memory that goes with it: a guest that stands still
/// with the disk mounted knows where everything is on it.
#[must_use]
pub fn plan_exact(inputs: &FlattenInputs) -> Vec<Step> {
    vec![convert(inputs), publish(inputs)]
}

fn convert(inputs: &FlattenInputs) -> Step {
    Step::Convert {
        from: inputs.frozen.clone(),
        format: inputs.format,
        to: inputs.work(),
    }
}

fn publish(inputs: &FlattenInputs) -> Step {
    Step::Publish {
        from: inputs.work(),
        to: inputs.out.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write};

    use super::*;
    use proptest::prelude::*;

    fn printed(steps: &[Step]) -> String {
        let mut text = String::new();
        for step in steps {
            writeln!(text, "{step}").unwrap();
            if let Some(undo) = step.undo() {
                writeln!(text, "    undo: {undo}").unwrap();
            }
        }
        text
    }

    #[test]
    fn r21_the_plan() {
        let inputs = FlattenInputs {
            frozen: "/machines/m/disk.qcow2".into(),
            format: DiskFormat::Qcow2,
            out: "/images/.making-1/disk.img".into(),
        };
        let text = format!(
            "an image\n\n{}\na snapshot's disk\n\n{}",
            printed(&plan(&inputs)),
            printed(&plan_exact(&inputs))
        );
        insta::assert_snapshot!(text);
    }

    /// What is there after the first `done` steps and the undoing of them all.
    fn left(steps: &[Step], done: usize, undone: bool) -> BTreeSet<PathBuf> {
        let mut there = BTreeSet::new();
        for step in &steps[..done] {
            if let Some(file) = step.releases() {
                assert!(there.remove(file), "{step} needs {}", file.display());
            }
            if let Some(file) = step.takes() {
                let new = there.insert(file.to_path_buf());
                assert!(new, "{step} overwrites {}", file.display());
            }
        }
        if undone {
            for step in steps[..done].iter().rev() {
                if let Some(Undo::Remove { file }) = step.undo() {
                    there.remove(&file);
                }
            }
        }
        there
    }

    fn inputs() -> impl Strategy<Value = FlattenInputs> {
        let file = "(/[a-z. ]{1,8}){1,3}/[a-z.]{0,4}[a-z]";
        (file, file, any::<bool>()).prop_map(|(frozen, out, raw)| FlattenInputs {
            frozen: frozen.into(),
            format: if raw {
                DiskFormat::Raw
            } else {
                DiskFormat::Qcow2
            },
            out: out.into(),
        })
    }

    proptest! {
        #[test]
        fn r21_whatever_a_step_takes_is_released_by_its_undo_or_by_a_later_step(inputs in inputs()) {
            for steps in [plan(&inputs), plan_exact(&inputs)] {
                for done in 0..=steps.len() {
                    prop_assert!(left(&steps, done, true).is_empty());
                }
                let result = left(&steps, steps.len(), false);
                prop_assert_eq!(result, BTreeSet::from([inputs.out.clone()]));
            }
        }

        #[test]
        fn a_plan_only_reads_the_frozen_disk_and_works_beside_its_result(inputs in inputs()) {
            for step in plan(&inputs) {
                prop_assert!(step.takes() != Some(&inputs.frozen) || inputs.frozen == inputs.out);
                prop_assert!(step.takes().is_none_or(|file| file.parent() == inputs.out.parent()));
                prop_assert!(step.releases() != Some(&inputs.frozen));
            }
        }
    }
}
