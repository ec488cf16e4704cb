//! Requests into sandboxes: a number is written to a file or into memory, and read again.

use super::{Answer, Client};
use crate::{
    api::Api,
    engine::EngineApi,
    error::Error,
    file::WriteSpec,
    id::SandboxId,
    process::{ExecOutput, ProcessSpec},
    sim::world::book::Place,
};

/// The file that holds the number.
const PATH: &str = "/root/number";
/// The page of memory that does.
const PAGE: u32 = 3;

async fn run(api: EngineApi, id: SandboxId, line: String) -> Result<ExecOutput, Error> {
    api.exec(id, ProcessSpec::shell(line)).await
}

async fn put(api: EngineApi, id: SandboxId, value: u64) -> Result<(), Error> {
    let text = value.to_string();
    let spec = WriteSpec {
        path: PATH.to_owned(),
        mode: None,
        create_parents: false,
    };
    let handle = api.open_write(id, spec).await?;
    let size = text.len() as u64;
    api.write_chunk(id, handle, 0, text.into()).await?;
    api.commit_write(id, handle, size).await.map(drop)
}

/// What a look at the number gave; nothing where there is no such file.
fn number(output: &ExecOutput) -> Option<u64> {
    let text = String::from_utf8_lossy(&output.stdout);
    match text.trim() {
        "" => Some(0),
        text => text.parse().ok(),
    }
}

impl Client {
    pub(super) async fn ping(&self) {
        let Some(id) = self.some_sandbox() else {
            return;
        };
        let least = self.version(id);
        let answer = self.ask(|api| async move { api.ping(id).await }).await;
        if let Answer::Told(Ok(record)) = answer {
            self.say("ping", id.uuid().as_u128(), || id.to_string());
            self.world.told(&record, least);
        }
    }

    pub(super) async fn write_file(&self) {
        self.write(Place::File).await;
    }

    pub(super) async fn write_memory(&self) {
        self.write(Place::Memory).await;
    }

    async fn write(&self, place: Place) {
        if let Some(id) = self.some_sandbox() {
            let zero = place == Place::Memory && self.world.chance(4000);
            self.write_at(id, place, zero).await;
        }
    }

    pub(super) async fn write_at(&self, id: SandboxId, place: Place, zero: bool) {
        let begun = self.world.book(|book| book.begin_write(id, place, zero));
        let Some(value) = begun else {
            return;
        };
        let answer = match place {
            Place::File => self.ask(|api| put(api, id, value)).await,
            Place::Memory => {
                let line = format!("poke {PAGE} {value}");
                self.ask(|api| async move { run(api, id, line).await.map(drop) })
                    .await
            }
        };
        let written = matches!(answer, Answer::Told(Ok(())));
        self.say("write", id.uuid().as_u128(), || {
            format!("{id} {place:?} {value}, told done: {written}")
        });
        self.world
            .book(|book| book.end_write(id, place, value, written));
    }

    pub(super) async fn read(&self) {
        if let Some(id) = self.some_sandbox() {
            let place = match self.world.chance(5000) {
                true => Place::File,
                false => Place::Memory,
            };
            self.read_at(id, place).await;
        }
    }

    /// Reads a number and compares it with what it may be. `None` where there was no answer.
    pub(super) async fn read_at(&self, id: SandboxId, place: Place) -> Option<()> {
        let look = self.world.book(|book| {
            let known = book.sandboxes.get_mut(&id)?;
            Some(known.register(place).look())
        })?;
        let line = match place {
            Place::File => format!("cat {PATH}"),
            Place::Memory => format!("peek {PAGE}"),
        };
        let answer = self.ask(|api| run(api, id, line)).await;
        let Answer::Told(Ok(output)) = answer else {
            return None;
        };
        let value = number(&output);
        self.say("read", id.uuid().as_u128(), || {
            format!("{id} {place:?} {value:?}")
        });
        let harmed = self.world.book(|book| book.harmed.contains(&id));
        let good = value.is_some_and(|value| {
            self.world.book(|book| {
                let known = book.sandboxes.get_mut(&id);
                known.is_none_or(|known| known.register(place).read(&look, value))
            })
        });
        if !good && !harmed {
            self.world.violated(|| {
                format!("{id}: in its {place:?} was {value:?}, and it could only be {look:?}")
            });
        }
        Some(())
    }
}
