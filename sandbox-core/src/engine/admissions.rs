//! The store's word that a sandbox runs, trusted for a moment so that a burst of calls costs one
//! read.
//!
//! A word is read in one moment and kept in another, and in between the record may be written. So a
//! read is a [`Look`], and a word is kept only if nothing was written here since the look began; and
//! while something is being written, the sandbox is [`Shut`]: every call asks the store itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    clock::Timestamp,
    id::{SandboxId, TeamId},
};

/// Words kept before the outdated ones are cleared away.
const WORDS_MAX: usize = 4096;

/// What is trusted about sandboxes, and until when.
#[derive(Debug, Default)]
pub(super) struct Admissions {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    words: HashMap<SandboxId, Word>,
    /// What tells the looks that are under way that they are too old.
    looks: HashMap<SandboxId, Arc<AtomicBool>>,
    /// How many writes are under way.
    shut: HashMap<SandboxId, u32>,
}

/// The store's word that a sandbox runs, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) until: Timestamp,
    /// Who owns it; that never changes.
    pub(super) team_id: TeamId,
    /// How often its deadline must be pushed while it is in use; never where it has none.
    pub(super) push_every: Option<Duration>,
}

/// A read that may become a word.
#[derive(Debug)]
pub(super) struct Look<'a> {
    admissions: &'a Admissions,
    id: SandboxId,
    outdated: Arc<AtomicBool>,
}

/// A write under way. No word counts until it is dropped, and none from before afterwards.
#[derive(Debug)]
pub(super) struct Shut<'a> {
    admissions: &'a Admissions,
    id: SandboxId,
}

impl Table {
    fn forget(&mut self, id: SandboxId) {
        self.words.remove(&id);
        if let Some(outdated) = self.looks.remove(&id) {
            outdated.store(true, Ordering::Relaxed);
        }
    }
}

impl Admissions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: SandboxId, now: Timestamp) -> Option<Word> {
        let table = self.lock();
        let word = table.words.get(&id).copied();
        word.filter(|word| word.until > now && !table.shut.contains_key(&id))
    }

    /// Comes before the read.
    pub(super) fn look(&self, id: SandboxId) -> Look<'_> {
        Look {
            admissions: self,
            id,
            outdated: Arc::clone(self.lock().looks.entry(id).or_default()),
        }
    }

    /// Comes before the write.
    pub(super) fn shut(&self, id: SandboxId) -> Shut<'_> {
        *self.lock().shut.entry(id).or_default() += 1;
        Shut {
            admissions: self,
            id,
        }
    }

    pub(super) fn forget(&self, id: SandboxId) {
        self.lock().forget(id);
    }
}

impl Look<'_> {
    /// Keeps the word that came of it, if it still counts.
    pub(super) fn keep(&self, word: Word, now: Timestamp) {
        let mut table = self.admissions.lock();
        if self.outdated.load(Ordering::Relaxed) || table.shut.contains_key(&self.id) {
            return;
        }
        if table.words.len() >= WORDS_MAX {
            table.words.retain(|_, word| word.until > now);
        }
        table.words.insert(self.id, word);
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut table = self.admissions.lock();
        let last = table.looks.get(&self.id).is_some_and(|outdated| {
            // The table's own and this one.
            Arc::ptr_eq(outdated, &self.outdated) && Arc::strong_count(outdated) == 2
        });
        if last {
            table.looks.remove(&self.id);
        }
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        let mut table = self.admissions.lock();
        table.forget(self.id);
        if let Some(count) = table.shut.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                table.shut.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::PLATFORM_TEAM_ID;

    const ID: SandboxId = SandboxId::from_uuid(Uuid::from_u128(1));

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(second, 0).unwrap()
    }

    fn word() -> Word {
        Word {
            until: at(10),
            team_id: PLATFORM_TEAM_ID,
            push_every: None,
        }
    }

    #[test]
    fn a_word_counts_until_its_time_is_up_or_it_is_forgotten() {
        let admissions = Admissions::default();
        admissions.look(ID).keep(word(), at(0));
        assert!(admissions.get(ID, at(9)).is_some());
        assert!(admissions.get(ID, at(10)).is_none());
        admissions.forget(ID);
        assert!(admissions.get(ID, at(0)).is_none());
    }

    #[test]
    fn a_look_from_before_a_write_keeps_no_word_after_it() {
        let admissions = Admissions::default();
        let (before, other) = (admissions.look(ID), admissions.look(ID));
        drop(other);
        drop(admissions.shut(ID));
        before.keep(word(), at(0));
        assert!(admissions.get(ID, at(0)).is_none());
        drop(before);
        admissions.look(ID).keep(word(), at(0));
        assert!(admissions.get(ID, at(0)).is_some());
    }

    #[test]
    fn while_something_is_written_no_word_counts_and_none_is_kept() {
        let admissions = Admissions::default();
        admissions.look(ID).keep(word(), at(0));
        let (shut, again) = (admissions.shut(ID), admissions.shut(ID));
        assert!(admissions.get(ID, at(0)).is_none());
        drop(again);
        admissions.look(ID).keep(word(), at(0));
        assert!(admissions.get(ID, at(0)).is_none());
        drop(shut);
        assert!(admissions.get(ID, at(0)).is_none(), "it was from before");
    }

    #[test]
    fn nothing_is_remembered_of_looks_and_writes_that_are_over() {
        let admissions = Admissions::default();
        let (first, second) = (admissions.look(ID), admissions.look(ID));
        let shut = admissions.shut(ID);
        drop((first, shut, second));
        let table = admissions.lock();
        assert!(table.looks.is_empty() && table.shut.is_empty() && table.words.is_empty());
    }
}
