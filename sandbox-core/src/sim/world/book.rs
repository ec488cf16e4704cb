//! What clients were told, and what must therefore be true.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::{
    build::{BuildRecord, BuildStatus, LogCursor},
    id::{BuildId, OperationId, SandboxId, TeamId, TemplateId},
    operation::{OperationKind, OperationStatus},
    sandbox::{OnTimeout, SandboxRecord},
    template::{TemplateKind, TemplateRecord},
};

/// What clients know.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) sandboxes: BTreeMap<SandboxId, Known>,
    pub(super) templates: BTreeMap<TemplateId, Made>,
    pub(super) keys: BTreeMap<(TeamId, String), SandboxId>,
    pub(super) operations: BTreeMap<OperationId, Begun>,
    pub(super) builds: BTreeMap<BuildId, Asked>,
    pub(super) build_keys: BTreeMap<String, BuildId>,
    /// Templates that someone wanted to be gone.
    pub(super) unwanted: BTreeSet<TemplateId>,
    /// Sandboxes that someone wanted to be gone, whether or not they are known.
    pub(super) doomed: BTreeSet<SandboxId>,
    /// Machines that came to harm without anyone's order.
    pub(super) harmed: BTreeSet<SandboxId>,
    /// Machines that the host paused by itself at some time.
    pub(super) host_paused: BTreeSet<SandboxId>,
    values: u64,
}

/// A sandbox that clients know of.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) team: TeamId,
    /// It has a lifetime, and may be gone at any moment.
    pub(super) mortal: bool,
    /// It has a lifetime, and may be paused at any moment.
    pub(super) drowsy: bool,
    /// A client was told that it is destroyed.
    pub(super) gone: bool,
    /// A client was told that it is paused, and nobody has asked for anything else since.
    pub(super) surely_paused: bool,
    /// The newest version that a client was told.
    pub(super) version: u64,
    /// Counts the beginnings and ends of requests that change how it stands.
    turns: u64,
    /// Such requests at work.
    busy: u32,
    /// Of one such request nobody knows what became.
    murky: bool,
    /// A number in a file.
    pub(super) file: Register,
    /// A number in memory.
    pub(super) memory: Register,
}

/// A value inside a guest, as far as clients know it.
#[derive(Debug, Clone, Default)]
pub(super) struct Register {
    /// What it may be; anything where absent.
    possible: Option<BTreeSet<u64>>,
    /// What nobody knows the fate of: it may be written at any later moment.
    loose: BTreeSet<u64>,
    /// All that anyone tried to write, in order.
    attempts: Vec<u64>,
    /// Someone is writing.
    writing: bool,
}

/// Where a look at a register began.
#[derive(Debug, Clone)]
pub(super) struct Look {
    possible: Option<BTreeSet<u64>>,
    attempts: usize,
    writing: bool,
}

/// A template that clients know of.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) file: Register,
    pub(super) memory: Register,
}

/// A build that a client has asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// How it has ended, as far as anyone was told.
    pub(super) ended: Option<BuildStatus>,
    /// The newest version that a client was told.
    pub(super) version: u64,
    /// Where the last one who followed its log has stopped.
    pub(super) read: LogCursor,
}

/// An operation that a client has begun.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) team: TeamId,
    pub(super) ended: Option<OperationStatus>,
}

/// Where a request for a change began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn(Option<u64>);

impl Register {
    pub(super) fn holding(value: u64) -> Self {
        Self {
            possible: Some(BTreeSet::from([value])),
            ..Self::default()
        }
    }

    /// Begins to write. `false` where someone else does.
    fn begin(&mut self, value: u64) -> bool {
        if self.writing {
            return false;
        }
        self.writing = true;
        self.attempts.push(value);
        if let Some(possible) = &mut self.possible {
            possible.insert(value);
        }
        true
    }

    fn end(&mut self, value: u64, written: bool) {
        self.writing = false;
        match written {
            true => self.now_is(value),
            false => {
                self.loose.insert(value);
            }
        }
    }

    fn now_is(&mut self, value: u64) {
        let possible = self.loose.iter().copied().chain([value]);
        self.possible = Some(possible.collect());
    }

    pub(super) fn look(&self) -> Look {
        Look {
            possible: self.possible.clone(),
            attempts: self.attempts.len(),
            writing: self.writing,
        }
    }

    /// What it may have been between a look and now.
    pub(super) fn since(&self, look: &Look) -> Self {
        let between = self.attempts.get(look.attempts..).unwrap_or_default();
        let possible = match (&look.possible, &self.possible) {
            (Some(before), Some(now)) => {
                let all = before.union(now).chain(between).chain(&self.loose);
                Some(all.copied().collect())
            }
            _ => None,
        };
        Self {
            possible,
            ..Self::default()
        }
    }

    fn may_be(&self, value: u64) -> bool {
        self.possible
            .as_ref()
            .is_none_or(|possible| possible.contains(&value))
    }

    /// Someone has read it. `false` where it can't have been so.
    pub(super) fn read(&mut self, look: &Look, value: u64) -> bool {
        if !self.since(look).may_be(value) {
            return false;
        }
        if !look.writing && !self.writing && look.attempts == self.attempts.len() {
            self.now_is(value);
        }
        true
    }
}

/// Which of a guest's two registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    File,
    Memory,
}

impl Known {
    pub(super) const fn register(&mut self, place: Place) -> &mut Register {
        match place {
            Place::File => &mut self.file,
            Place::Memory => &mut self.memory,
        }
    }

    const fn is_still(&self) -> bool {
        self.busy == 0 && !self.murky
    }
}

impl Book {
    /// Begins to write a new value, which is returned, unless someone else writes there.
    pub(super) fn begin_write(&mut self, id: SandboxId, place: Place, zero: bool) -> Option<u64> {
        self.values += 1;
        let value = if zero { 0 } else { self.values };
        let register = self.sandboxes.get_mut(&id)?.register(place);
        register.begin(value).then_some(value)
    }

    pub(super) fn end_write(&mut self, id: SandboxId, place: Place, value: u64, written: bool) {
        if let Some(known) = self.sandboxes.get_mut(&id) {
            known.register(place).end(value, written);
        }
    }

    /// A request begins that changes how a sandbox stands.
    pub(super) fn begin_turn(&mut self, id: SandboxId) -> Turn {
        Turn(self.sandboxes.get_mut(&id).and_then(|known| {
            let alone = known.is_still();
            known.surely_paused = false;
            known.busy += 1;
            known.turns += 1;
            alone.then_some(known.turns)
        }))
    }

    /// It ends. Returns whether nothing else was asked meanwhile, so that what it did still holds.
    pub(super) fn end_turn(&mut self, id: SandboxId, turn: Turn, certain: bool) -> bool {
        let Some(known) = self.sandboxes.get_mut(&id) else {
            return false;
        };
        let alone = turn.0 == Some(known.turns) && certain;
        known.busy = known.busy.saturating_sub(1);
        known.turns += 1;
        known.murky |= !certain;
        alone
    }

    /// Something happens to its machine that nobody asked for.
    pub(super) fn disturb(&mut self, id: SandboxId) {
        if let Some(known) = self.sandboxes.get_mut(&id) {
            known.turns += 1;
            known.surely_paused = false;
        }
    }

    /// Whether it is known to be there: made, not ended by anyone's wish, nor by its lifetime.
    pub(super) fn must_exist(&self, id: SandboxId) -> bool {
        self.sandboxes.get(&id).is_some_and(|known| {
            !self.doomed.contains(&id) && (!known.mortal || known.surely_paused)
        })
    }
}

impl World {
    pub(super) fn book<T>(&self, note: impl FnOnce(&mut Book) -> T) -> T {
        note(&mut self.lock().book)
    }

    /// A client was told that a sandbox was made.
    pub(super) fn told_made(&self, record: &SandboxRecord) {
        let id = record.id;
        let rival = self.book(|book| {
            let (file, memory) = match book.templates.get(&record.template_id) {
                Some(made) => (made.file.clone(), made.memory.clone()),
                None if record.template_id == crate::template::MINIMAL_TEMPLATE_ID => {
                    (Register::holding(0), Register::holding(0))
                }
                None => Default::default(),
            };
            book.sandboxes.entry(id).or_insert_with(|| Known {
                team: record.team_id,
                mortal: record.timeout_sec.is_some() && record.on_timeout == OnTimeout::Destroy,
                drowsy: record.timeout_sec.is_some() && record.on_timeout == OnTimeout::Pause,
                gone: false,
                surely_paused: false,
                version: 0,
                turns: 0,
                busy: 0,
                murky: false,
                file,
                memory,
            });
            let key = record.idempotency_key.clone()?;
            let before = book.keys.insert((record.team_id, key), id)?;
            (before != id && book.must_exist(before)).then_some(before)
        });
        if let Some(rival) = rival {
            self.violated(|| format!("{id} was made, and {rival} under the same key before"));
        }
        self.told(record, 0);
    }

    /// A client was told a record; `least` is the version that had been told before it asked.
    pub(super) fn told(&self, record: &SandboxRecord, least: u64) {
        self.book(|book| {
            if let Some(known) = book.sandboxes.get_mut(&record.id) {
                known.version = known.version.max(record.version);
            }
        });
        if record.version < least {
            let (id, version) = (record.id, record.version);
            self.violated(|| format!("{id}: version {version} was told after {least}"));
        }
    }

    /// A client was told that a template was made of a sandbox; `looks` are from before it asked.
    pub(super) fn told_template(&self, template: &TemplateRecord, looks: Option<&(Look, Look)>) {
        self.book(|book| {
            let origin = template.origin.and_then(|id| book.sandboxes.get(&id));
            let (file, memory) = match (origin, looks) {
                (Some(origin), Some((file, memory))) => {
                    (origin.file.since(file), origin.memory.since(memory))
                }
                _ => Default::default(),
            };
            let memory = match template.kind {
                TemplateKind::Snapshot => memory,
                TemplateKind::Image => Register::holding(0),
            };
            let file = match template.origin {
                Some(_) => file,
                None => Register::holding(0),
            };
            let made = Made { file, memory };
            book.templates.entry(template.id).or_insert(made);
        });
    }

    /// A client was told how an operation stands; `before` is what had been told before it asked.
    pub(super) fn told_status(
        &self,
        id: OperationId,
        kind: OperationKind,
        status: &OperationStatus,
        before: Option<OperationStatus>,
    ) {
        if *status != OperationStatus::Running {
            self.book(|book| {
                if let Some(begun) = book.operations.get_mut(&id) {
                    begun.ended = Some(status.clone());
                }
            });
        }
        if let Some(before) = before.filter(|before| before != status) {
            let kind = kind.as_str();
            self.violated(|| format!("{kind} {id} had ended {before:?}, then {status:?}"));
        }
    }

    /// A client was told how a build stands; `least` is the version that had been told before it asked.
    pub(super) fn told_build(&self, record: &BuildRecord, least: u64) {
        let id = record.id;
        let status = record.status;
        let before = self.book(|book| {
            let asked = book.builds.entry(id).or_default();
            let before = asked.ended;
            asked.version = asked.version.max(record.version);
            asked.ended = asked.ended.or(status.ended().then_some(status));
            before
        });
        if record.version < least {
            self.violated(|| format!("{id}: version {} was told after {least}", record.version));
        }
        if let Some(before) = before.filter(|before| status.ended() && *before != status) {
            self.violated(|| format!("{id} had ended {before:?}, then {status:?}"));
        }
        let Some(written) = self.built(id) else {
            self.violated(|| format!("{id} was told of, and was never written"));
            return;
        };
        if status.ended() && written != *record {
            self.violated(|| format!("{record:?} was told of {written:?}"));
        }
        let made = written
            .template_id
            .filter(|_| status == BuildStatus::Success);
        let template = made.and_then(|made| self.lock().truth.templates.get(&made).cloned());
        if let Some(template) = template {
            self.told_template(&template, None);
        }
    }
}
