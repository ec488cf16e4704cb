//! One client: an operation by chance after the other, each to its end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sandbox_sdk::{Client, Error, GuestError, PageRequest, SandboxFilter};
use tokio::time::timeout;

use crate::{
    Chance,
    book::{Book, Fate, KnownSandbox, KnownTemplate},
};

/// Longer than any call may take while daemons come and go.
const LIMIT: Duration = Duration::from_secs(90);
/// As many as a small machine carries.
const SANDBOXES_MAX: usize = 5;
const TEMPLATES_MAX: usize = 3;

pub(crate) struct Storm {
    pub(crate) client: Client,
    pub(crate) book: Book,
    left: AtomicUsize,
    mark: AtomicU64,
    /// How often what went how.
    tally: Mutex<BTreeMap<String, u32>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Create,
    Exec,
    Write,
    Pause,
    Resume,
    Snapshot,
    DeleteTemplate,
    Destroy,
    List,
}

/// As often as it stands here.
const KINDS: [Kind; 20] = [
    Kind::Create,
    Kind::Create,
    Kind::Create,
    Kind::Exec,
    Kind::Exec,
    Kind::Exec,
    Kind::Write,
    Kind::Write,
    Kind::Write,
    Kind::Pause,
    Kind::Pause,
    Kind::Pause,
    Kind::Resume,
    Kind::Resume,
    Kind::Resume,
    Kind::Snapshot,
    Kind::Snapshot,
    Kind::DeleteTemplate,
    Kind::Destroy,
    Kind::List,
];

impl Storm {
    pub(crate) fn new(client: Client, operations: usize) -> Self {
        Self {
            client,
            book: Book::default(),
            left: AtomicUsize::new(operations),
            mark: AtomicU64::new(1),
            tally: Mutex::default(),
        }
    }

    /// Operations until there have been enough of all clients together.
    pub(crate) async fn run(&self, mut chance: Chance) {
        loop {
            let taken = self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
            if taken.is_err() {
                return;
            }
            let kind = KINDS[chance.below(KINDS.len())];
            let done = timeout(LIMIT, self.operation(kind, &mut chance)).await;
            let done = done.unwrap_or_else(|_| panic!("{kind:?} never ends"));
            let how = match done {
                Ok(()) => "done",
                Err(error) => allowed(kind, &error),
            };
            let mut tally = self.tally.lock().unwrap();
            *tally.entry(format!("{kind:?} {how}")).or_default() += 1;
        }
    }

    pub(crate) fn tally(&self) -> String {
        let tally = self.tally.lock().unwrap();
        let parts = tally.iter().map(|(what, count)| format!("{what}: {count}"));
        parts.collect::<Vec<_>>().join(", ")
    }

    fn sandbox(&self, chance: &mut Chance) -> Option<Arc<KnownSandbox>> {
        let mut there = self.book.sandboxes();
        there.retain(|known| known.fate() == Fate::Kept);
        match there.len() {
            0 => None,
            count => Some(there.swap_remove(chance.below(count))),
        }
    }

    fn template(&self, chance: &mut Chance) -> Option<Arc<KnownTemplate>> {
        let mut there = self.book.templates();
        there.retain(|known| known.fate() == Fate::Kept);
        match there.len() {
            0 => None,
            count => Some(there.swap_remove(chance.below(count))),
        }
    }

    async fn operation(&self, kind: Kind, chance: &mut Chance) -> Result<(), Error> {
        if matches!(kind, Kind::Create) || self.sandbox(chance).is_none() {
            return self.create(chance).await;
        }
        let Some(known) = self.sandbox(chance) else {
            return Ok(());
        };
        // Often enough it is paused by then.
        if matches!(kind, Kind::Exec | Kind::Write) && chance.below(6) > 0 {
            known.sandbox.resume().await?;
        }
        match kind {
            Kind::Create => Ok(()),
            Kind::Exec => self.exec(&known).await,
            Kind::Write => self.write(&known).await,
            Kind::Pause => known.sandbox.pause().await.map(drop),
            Kind::Resume => known.sandbox.resume().await.map(drop),
            Kind::Snapshot => self.snapshot(&known, chance).await,
            Kind::DeleteTemplate => self.delete_template(chance).await,
            Kind::Destroy => {
                known.meets(Fate::Doomed);
                known.sandbox.destroy().await?;
                known.meets(Fate::Gone);
                Ok(())
            }
            Kind::List => self.list().await,
        }
    }

    async fn create(&self, chance: &mut Chance) -> Result<(), Error> {
        let page = PageRequest::default();
        let there = self.client.list(SandboxFilter::default(), page).await?;
        if there.items.len() >= SANDBOXES_MAX {
            return Ok(());
        }
        let template = match chance.below(2) {
            0 => None,
            _ => self.template(chance),
        };
        let mut create = self.client.create();
        if let Some(template) = &template {
            create = create.template(template.id.to_string());
        }
        let sandbox = create.await?;
        let marks = template.map(|template| template.marks.clone());
        self.book.add_sandbox(sandbox, marks.unwrap_or_default());
        Ok(())
    }

    /// Whether memory and disk hold what they should.
    pub(crate) async fn exec(&self, known: &KnownSandbox) -> Result<(), Error> {
        let mut marks = known.marks.lock().await;
        for (file, mark) in marks.each() {
            let line = format!("cat {file} 2>/dev/null");
            let output = known.sandbox.exec(line).await?;
            let text = String::from_utf8(output.stdout.into()).unwrap();
            mark.assert_allows(text.trim(), &format!("{file} of {}", known.id()));
        }
        Ok(())
    }

    async fn write(&self, known: &KnownSandbox) -> Result<(), Error> {
        let mut marks = known.marks.lock().await;
        let number = self.mark.fetch_add(1, Ordering::SeqCst);
        for (file, mark) in marks.each() {
            mark.perhaps.insert(number);
            let files = known.sandbox.files();
            files.write(file, number.to_string()).await?;
            mark.perhaps.remove(&number);
            mark.written = Some(number);
        }
        Ok(())
    }

    async fn snapshot(&self, known: &KnownSandbox, chance: &mut Chance) -> Result<(), Error> {
        let mut there = self.book.templates();
        there.retain(|known| known.fate() < Fate::Gone);
        if there.len() >= TEMPLATES_MAX {
            return Ok(());
        }
        // Of a few names, so that some are taken.
        let name = format!("storm-{}", chance.below(20));
        let mut snapshot = known.sandbox.snapshot(name).resume(chance.below(2) == 0);
        // Booting from a disk alone takes too long to be frequent.
        let image_only = chance.below(4) == 0;
        if image_only {
            snapshot = snapshot.image_only();
        }
        // Nobody writes meanwhile.
        let marks = known.marks.lock().await;
        let template = snapshot.await?;
        let marks = match image_only {
            true => marks.of_disk(),
            false => marks.clone(),
        };
        self.book.add_template(template.id(), marks);
        Ok(())
    }

    async fn delete_template(&self, chance: &mut Chance) -> Result<(), Error> {
        let Some(known) = self.template(chance) else {
            return Ok(());
        };
        known.meets(Fate::Doomed);
        let deleted = self.client.templates().delete(known.id.to_string()).await;
        if matches!(deleted, Ok(()) | Err(Error::TemplateNotFound(_))) {
            known.meets(Fate::Gone);
        }
        deleted
    }

    async fn list(&self) -> Result<(), Error> {
        // Taken before it is asked.
        let mut known = self.book.sandboxes();
        known.retain(|known| known.fate() == Fate::Gone);
        let page = PageRequest::default();
        let listed = self.client.list(SandboxFilter::default(), page).await?;
        for gone in known {
            let found = listed.items.iter().any(|record| record.id == gone.id());
            assert!(!found, "{} came back", gone.id());
        }
        Ok(())
    }
}

/// What may come of an operation while others are at work and daemons die.
fn allowed(kind: Kind, error: &Error) -> &'static str {
    match error {
        Error::Unavailable(_) => "unavailable",
        Error::GuestUnavailable(_) | Error::Guest(GuestError::NoSuchWrite) => "cut off",
        Error::InvalidState { .. } => "in a wrong state",
        Error::Conflict(_) => "in conflict",
        Error::SandboxNotFound(_) | Error::TemplateNotFound(_) => "not found",
        Error::TemplateExists(_) => "name taken",
        Error::Capacity(_) => "no room",
        error => panic!("{kind:?}: {error:?}"),
    }
}
