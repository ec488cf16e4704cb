//! What clients were told, and so must be true.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use sandbox_sdk::{Sandbox, SandboxId, TemplateId};

/// What became of something, as far as clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It is there.
    Kept,
    /// Its end was asked for, and nobody knows what came of it.
    Doomed,
    /// It is gone.
    Gone,
}

/// What a sandbox has written to a place of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark {
    /// The last that was acknowledged.
    pub(crate) written: Option<u64>,
    /// Those that were not. Each may have been written since, or be written any time.
    pub(crate) perhaps: BTreeSet<u64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    pub(crate) memory: Mark,
    pub(crate) disk: Mark,
}

impl Mark {
    pub(crate) fn assert_allows(&self, found: &str, whose: &str) {
        let found: Option<u64> = match found {
            "" => None,
            number => Some(number.parse().unwrap()),
        };
        let allowed =
            found == self.written || found.is_some_and(|mark| self.perhaps.contains(&mark));
        assert!(allowed, "{whose} has {found:?}, and should: {self:?}");
    }
}

impl Marks {
    /// What a sandbox begins with that boots from the disk.
    pub(crate) fn of_disk(&self) -> Self {
        Self {
            memory: Mark::default(),
            disk: self.disk.clone(),
        }
    }

    /// Each with the file that it is in.
    pub(crate) fn each(&mut self) -> [(&'static str, &mut Mark); 2] {
        [
            ("/dev/shm/mark", &mut self.memory),
            ("/root/mark", &mut self.disk),
        ]
    }
}

#[derive(Debug)]
pub(crate) struct KnownSandbox {
    pub(crate) sandbox: Sandbox,
    /// Held by whoever writes or reads them.
    pub(crate) marks: tokio::sync::Mutex<Marks>,
    fate: Mutex<Fate>,
}

#[derive(Debug)]
pub(crate) struct KnownTemplate {
    pub(crate) id: TemplateId,
    /// What its sandboxes begin with.
    pub(crate) marks: Marks,
    fate: Mutex<Fate>,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    sandboxes: Mutex<Vec<Arc<KnownSandbox>>>,
    templates: Mutex<Vec<Arc<KnownTemplate>>>,
}

impl KnownSandbox {
    pub(crate) fn id(&self) -> SandboxId {
        self.sandbox.id()
    }

    pub(crate) fn fate(&self) -> Fate {
        *self.fate.lock().unwrap()
    }

    pub(crate) fn meets(&self, fate: Fate) {
        let mut met = self.fate.lock().unwrap();
        *met = fate.max(*met);
    }
}

impl KnownTemplate {
    pub(crate) fn fate(&self) -> Fate {
        *self.fate.lock().unwrap()
    }

    pub(crate) fn meets(&self, fate: Fate) {
        let mut met = self.fate.lock().unwrap();
        *met = fate.max(*met);
    }
}

impl Book {
    pub(crate) fn add_sandbox(&self, sandbox: Sandbox, marks: Marks) {
        let known = KnownSandbox {
            sandbox,
            marks: tokio::sync::Mutex::new(marks),
            fate: Mutex::new(Fate::Kept),
        };
        self.sandboxes.lock().unwrap().push(Arc::new(known));
    }

    pub(crate) fn add_template(&self, id: TemplateId, marks: Marks) {
        let known = KnownTemplate {
            id,
            marks,
            fate: Mutex::new(Fate::Kept),
        };
        self.templates.lock().unwrap().push(Arc::new(known));
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<KnownSandbox>> {
        self.sandboxes.lock().unwrap().clone()
    }

    pub(crate) fn templates(&self) -> Vec<Arc<KnownTemplate>> {
        self.templates.lock().unwrap().clone()
    }
}
