//! A simulated guest's memory: numbered pages, saved as what differs from what was saved before.

use std::collections::BTreeMap;

use crate::planted::{Bug, planted};

/// Pages by number; those that are not there are zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// As the guest sees it.
    pages: BTreeMap<u32, u64>,
    /// As it was saved last.
    saved: BTreeMap<u32, u64>,
}

impl Memory {
    pub(super) fn poke(&mut self, page: u32, value: u64) {
        self.pages.insert(page, value);
    }

    pub(super) fn peek(&self, page: u32) -> u64 {
        self.pages.get(&page).copied().unwrap_or(0)
    }

    /// Saves what has changed. The guest goes on from what is saved, as one does that is resumed.
    pub(super) fn save(&mut self) {
        for (page, value) in &self.pages {
            if *value == 0 && planted(Bug::ZeroPageUnchanged) {
                continue;
            }
            self.saved.insert(*page, *value);
        }
        self.pages.clone_from(&self.saved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_24_a_page_that_was_zeroed_stays_zero_when_it_is_saved() {
        let mut memory = Memory::default();
        memory.poke(3, 7);
        memory.save();
        memory.poke(3, 0);
        memory.save();
        assert_eq!(memory.peek(3), 0);
    }
}
