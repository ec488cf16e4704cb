//! Faults and delays, by call.

use std::{collections::BTreeMap, time::Duration};

use crate::host::HostError;

/// What a host can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`Host::hello`](crate::host::Host::hello).
    Hello,
    /// [`Host::create_sandbox`](crate::host::Host::create_sandbox).
    Create,
    /// [`Host::destroy_sandbox`](crate::host::Host::destroy_sandbox).
    Destroy,
    /// [`Host::pause_sandbox`](crate::host::Host::pause_sandbox).
    Pause,
    /// [`Host::resume_sandbox`](crate::host::Host::resume_sandbox).
    Resume,
    /// [`Host::create_snapshot`](crate::host::Host::create_snapshot) and
    /// [`Host::flatten_rootfs`](crate::host::Host::flatten_rootfs).
    Snapshot,
    /// [`Host::import_image`](crate::host::Host::import_image).
    Import,
    /// [`Host::delete_snapshot`](crate::host::Host::delete_snapshot).
    DeleteImage,
    /// [`Host::list_sandboxes`](crate::host::Host::list_sandboxes).
    List,
    /// Any call into a guest; its fault is a lost connection.
    Guest,
}

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Instead of doing anything.
    Before,
    /// In the middle of pausing, resuming or making an image: nothing is left of the image, and a
    /// machine that was taken out for it stays paused.
    During,
    /// After all was done: only the answer is wrong.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    Once,
    Always,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    faults: Vec<(Call, When, HostError, Times)>,
    delays: BTreeMap<Call, Duration>,
    transits: BTreeMap<Call, Duration>,
    counts: BTreeMap<Call, u64>,
}

impl Faults {
    pub(super) fn add(&mut self, call: Call, when: When, error: HostError, times: Times) {
        self.faults.push((call, when, error, times));
    }

    pub(super) fn delay(&mut self, call: Call, duration: Duration) {
        self.delays.insert(call, duration);
    }

    pub(super) fn delay_delivery(&mut self, call: Call, duration: Duration) {
        self.transits.insert(call, duration);
    }

    pub(super) fn heal(&mut self) {
        self.transits.clear();
        self.faults.clear();
        self.delays.clear();
    }

    pub(super) fn count(&self, call: Call) -> u64 {
        self.counts.get(&call).copied().unwrap_or(0)
    }

    pub(super) fn note(&mut self, call: Call) {
        *self.counts.entry(call).or_default() += 1;
    }

    pub(super) fn delay_of(&self, call: Call) -> Option<Duration> {
        self.delays.get(&call).copied()
    }

    pub(super) fn transit_of(&self, call: Call) -> Option<Duration> {
        self.transits.get(&call).copied()
    }

    pub(super) fn strike(&mut self, call: Call, when: When) -> Result<(), HostError> {
        let due = |fault: &(Call, When, HostError, Times)| (fault.0, fault.1) == (call, when);
        let Some(found) = self.faults.iter().position(due) else {
            return Ok(());
        };
        let (_, _, error, times) = self.faults[found].clone();
        if times == Times::Once {
            self.faults.remove(found);
        }
        Err(error)
    }
}
