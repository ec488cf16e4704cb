//! The end of a life: the faults are over, time passes, all must be well; then all is deleted.

use std::{sync::Arc, time::Duration};

use super::{World, book::Place, client, plane::Planes};
use crate::{
    api::Api,
    audit::Actor,
    caller::Caller,
    clock::Clock,
    engine::EngineApi,
    error::Error,
    id::{SandboxId, TemplateId},
    sandbox::SandboxState,
    template::{MINIMAL_TEMPLATE_ID, TemplateState},
};

/// How often it is looked whether all is well, and how many times before that takes too long. A
/// lease that was written by a clock which is ahead lasts as much longer.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOKS_MAX: u32 = 120;

pub(super) async fn settle(world: &Arc<World>, planes: &Arc<Planes>) {
    world.note("settles", 0, String::new);
    world.clear_up();
    planes.heal();
    planes.all_up().await;
    let since = world.clock.now();
    let amiss = |world: &World| {
        world.check_leases(since);
        world.unsettled()
    };
    if !patient(world, "it did not settle", amiss).await {
        return;
    }
    world.check_settled();
    if !world.lock().violations.is_empty() {
        return;
    }
    let Some(alive) = planes.any(0) else {
        world.violated(|| "no engine is up".to_owned());
        return;
    };
    let api = alive.engine.api(Caller::admin(Actor::app()));
    drop(alive);
    let end = Duration::from_secs(3600);
    let done = tokio::time::timeout(end, take_down(world, planes, &api)).await;
    if done.is_err() {
        world.violated(|| "it could not be taken down in an hour".to_owned());
        return;
    }
    if patient(world, "something is left", |world| world.left()).await {
        world.check_audit();
    }
}

/// Waits until nothing is amiss. `false`, and a violation, where that takes too long.
async fn patient(world: &Arc<World>, what: &str, amiss: impl Fn(&World) -> Option<String>) -> bool {
    let mut looks = 0;
    // Twice in a row: what is on its way may still make a mess.
    let mut well = 0;
    loop {
        match amiss(world) {
            None => well += 1,
            Some(why) => {
                well = 0;
                if looks >= LOOKS_MAX {
                    world.violated(|| format!("{what}: {why}"));
                    return false;
                }
            }
        }
        // Late messages have all arrived by then.
        if well >= 2 && looks >= 8 {
            return true;
        }
        looks += 1;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is paused goes on and holds what it held; then all is destroyed.
async fn take_down(world: &Arc<World>, planes: &Arc<Planes>, api: &EngineApi) {
    let reader = client::reader(world, planes);
    for record in world.store.all_sandboxes() {
        let id = record.id;
        let (known, mortal, harmed) = world.book(|book| {
            let known = book.sandboxes.get(&id);
            let mortal = known.is_some_and(|known| known.mortal || known.drowsy);
            (known.is_some(), mortal, book.harmed.contains(&id))
        });
        if record.state == SandboxState::Paused {
            if let Err(error) = api.resume(id).await {
                // An engine whose clock is ahead ends what one that is behind has begun: nothing is
                // lost by it, and nothing done.
                if !harmed && !world.lock().clocks_jump {
                    world.violated(|| format!("{id} is paused and can't go on: {error}"));
                }
                continue;
            }
        } else if record.state != SandboxState::Running {
            continue;
        }
        for place in [Place::File, Place::Memory] {
            let read = reader.read_at(id, place).await;
            if known && read.is_none() && !mortal && !harmed {
                world.violated(|| format!("{id} runs, and its {place:?} can't be read"));
            }
        }
    }
    for record in world.store.all_sandboxes() {
        let id = record.id;
        world.book(|book| book.doomed.insert(id));
        if let Err(error) = api.destroy(id).await {
            world.violated(|| format!("{id} can't be destroyed: {error}"));
        }
    }
    let gone: Vec<SandboxId> = world.book(|book| {
        let gone = book.sandboxes.iter().filter(|(_, known)| known.gone);
        gone.map(|(id, _)| *id).collect()
    });
    for id in gone {
        if let Err(error) = api.destroy(id).await {
            world.violated(|| format!("{id} was destroyed, and not the second time: {error}"));
        }
        let found = api.get(id).await;
        if !matches!(found, Err(Error::SandboxNotFound(_))) {
            world.violated(|| format!("{id} was destroyed, and {found:?} was found"));
        }
    }
    for template in world.store.all_templates() {
        let ready = template.state == TemplateState::Ready;
        if ready && template.id != MINIMAL_TEMPLATE_ID {
            remove(world, api, template.id).await;
        }
    }
}

async fn remove(world: &World, api: &EngineApi, id: TemplateId) {
    if let Err(error) = api.delete_template(&id.to_string()).await {
        world.violated(|| format!("{id} can't be deleted: {error}"));
    }
}
