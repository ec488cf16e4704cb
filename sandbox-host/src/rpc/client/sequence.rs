//! One sequence of changes over all the processes that a host has been.
//!
//! A host counts from 0 after each start, while whoever follows its changes remembers a number of
//! the process before. What is told here goes on above all that was told before.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use uuid::Uuid;

/// All that was told so far.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    highest: Arc<AtomicU64>,
    /// The newest process, and where its numbers begin.
    newest: Option<(Uuid, u64)>,
}

/// The numbers of one process of the host.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    highest: Arc<AtomicU64>,
    base: u64,
}

impl Sequence {
    /// The numbers of the process that was just reached.
    pub(super) fn of(&mut self, instance: Uuid) -> Numbers {
        let base = match self.newest {
            Some((newest, base)) if newest == instance => base,
            Some(_) => self.highest.load(Ordering::Acquire) + 1,
            None => 0,
        };
        self.newest = Some((instance, base));
        Numbers {
            highest: Arc::clone(&self.highest),
            base,
        }
    }
}

impl Numbers {
    /// How a number of the process is told.
    pub(super) fn told(&self, sequence: u64) -> u64 {
        let told = self.base.saturating_add(sequence);
        self.highest.fetch_max(told, Ordering::AcqRel);
        told
    }

    /// Which number of the process was told so; none where it was one of an earlier process.
    pub(super) fn untold(&self, told: u64) -> Option<u64> {
        told.checked_sub(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_over_restarts_and_are_the_same_over_reconnects() {
        let mut sequence = Sequence::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = sequence.of(one);
        assert_eq!((first.told(0), first.told(7)), (0, 7));
        let again = sequence.of(one);
        assert_eq!((again.told(8), again.untold(8)), (8, Some(8)));
        let other = sequence.of(two);
        assert_eq!(other.untold(8), None, "it is of the process before");
        assert_eq!(other.told(0), 9, "so that it counts as newer");
        assert_eq!(other.untold(9), Some(0));
    }
}
