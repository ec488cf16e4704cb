//! What must be so once the storm is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use sandbox_core::template::MINIMAL_TEMPLATE_ID;
use sandbox_sdk::{
    Error, PageRequest, SandboxFilter, SandboxId, SandboxState, TemplateId, TemplatePageRequest,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{book::Fate, client::Storm, daemon_support::Folder};

/// What nobody knows goes after a minute.
const PATIENCE: Duration = Duration::from_secs(100);

/// Waits until the store, the host's inventory and the processes say the same, and no operation is
/// in flight.
pub(crate) async fn agree(folder: &Folder, storm: &Storm) {
    let until = Instant::now() + PATIENCE;
    while let Err(why) = look(folder, storm).await {
        assert!(Instant::now() < until, "{why}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn look(folder: &Folder, storm: &Storm) -> Result<(), String> {
    let page = PageRequest {
        limit: PageRequest::LIMIT_MAX,
        after: None,
    };
    let listed = storm.client.list(SandboxFilter::default(), page).await;
    let records = listed.map_err(|error| error.to_string())?.items;
    if let Some(busy) = records.iter().find(|record| record.operation.is_some()) {
        return Err(format!("in flight: {busy:?}"));
    }
    let states: BTreeMap<SandboxId, SandboxState> = records
        .iter()
        .map(|record| (record.id, record.state))
        .collect();
    let machines = inventory(folder);
    if states != machines {
        return Err(format!("the store has {states:?}, the host {machines:?}"));
    }
    // No machine was ended from outside, and none may have ended otherwise.
    let odd = states
        .iter()
        .find(|(_, state)| !matches!(state, SandboxState::Running | SandboxState::Paused));
    if let Some((id, state)) = odd {
        return Err(format!("{id} is {state:?}"));
    }
    let running = states
        .values()
        .filter(|state| **state == SandboxState::Running);
    let (running, processes) = (running.count(), folder.leftovers.machine_pids().len());
    if running != processes {
        return Err(format!("{running} run, in {processes} processes"));
    }
    // One that was deleted stays for those who were started from it; the host's own stays always.
    let (listed, mut images) = (templates(storm).await?, images(folder));
    let used: BTreeSet<TemplateId> = records.iter().map(|record| record.template_id).collect();
    images.retain(|image| listed.contains(image) || !used.contains(image));
    images.remove(&MINIMAL_TEMPLATE_ID);
    if listed != images {
        return Err(format!("the store has {listed:?}, the host {images:?}"));
    }
    Ok(())
}

/// Sandboxes by the manifests of the host's machines.
fn inventory(folder: &Folder) -> BTreeMap<SandboxId, SandboxState> {
    let machines = fs::read_dir(folder.path.join("host/machines")).unwrap();
    machines
        .filter_map(|machine| {
            let manifest = fs::read(machine.unwrap().path().join("manifest.json")).ok()?;
            let manifest: Value = serde_json::from_slice(&manifest).unwrap();
            let standing = &manifest["use"];
            let id = serde_json::from_value(standing["sandbox"].clone()).unwrap();
            let state = match standing["state"].as_str().unwrap() {
                "running" => SandboxState::Running,
                "paused" => SandboxState::Paused,
                "stopped" => SandboxState::Stopped,
                other => panic!("{id} is {other}"),
            };
            Some((id, state))
        })
        .collect()
}

async fn templates(storm: &Storm) -> Result<BTreeSet<TemplateId>, String> {
    let page = TemplatePageRequest::default();
    let listed = storm.client.templates().list(None, page).await;
    let listed = listed.map_err(|error| error.to_string())?;
    let made = listed
        .items
        .iter()
        .filter(|one| one.name.as_str() != "minimal");
    Ok(made.map(|template| template.id).collect())
}

/// Names of image folders that are no template's stay as what they are not.
fn images(folder: &Folder) -> BTreeSet<TemplateId> {
    let images = fs::read_dir(folder.path.join("host/images")).unwrap();
    let names = images.map(|image| image.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name != "minimal")
        .map(|name| match name.parse() {
            Ok(uuid) => TemplateId::from_uuid(uuid),
            Err(_) => TemplateId::from_uuid(uuid::Uuid::nil()),
        })
        .collect()
}

/// What was acknowledged is there with all that was written to it, and what was deleted is not.
pub(crate) async fn all_is_kept(storm: &Storm) {
    for known in storm.book.sandboxes() {
        let found = storm.client.get(known.id()).await;
        match (known.fate(), &found) {
            (Fate::Kept, Ok(sandbox)) => {
                sandbox.resume().await.unwrap();
                storm.exec(&known).await.unwrap();
            }
            (Fate::Gone | Fate::Doomed, Err(Error::SandboxNotFound(_))) | (Fate::Doomed, Ok(_)) => {
            }
            (fate, found) => panic!("{} is {fate:?}: {found:?}", known.id()),
        }
    }
    for known in storm.book.templates() {
        let found = storm.client.templates().get(known.id.to_string()).await;
        match (known.fate(), &found) {
            (Fate::Kept | Fate::Doomed, Ok(_))
            | (Fate::Gone | Fate::Doomed, Err(Error::TemplateNotFound(_))) => {}
            (fate, found) => panic!("{} is {fate:?}: {found:?}", known.id),
        }
    }
}

/// Deletes all there is, with what no client was told of.
pub(crate) async fn delete_all(folder: &Folder, storm: &Storm) {
    let page = PageRequest {
        limit: PageRequest::LIMIT_MAX,
        after: None,
    };
    let listed = storm.client.list(SandboxFilter::default(), page).await;
    for record in listed.unwrap().items {
        let sandbox = storm.client.get(record.id).await.unwrap();
        sandbox.destroy().await.unwrap();
    }
    for template in templates(storm).await.unwrap() {
        let templates = storm.client.templates();
        templates.delete(template.to_string()).await.unwrap();
    }
    agree(folder, storm).await;
    assert!(inventory(folder).is_empty() && images(folder).is_empty());
    assert_eq!(folder.leftovers.machine_pids(), [0_i32; 0]);
}
