//! What happens by itself: cables are cut, processes die, disks fill up, clocks jump, machines come
//! to harm.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use super::{World, network::Peer, plane::Planes, weather::Weather};
use crate::{
    host::HostError,
    id::{SandboxId, TemplateId},
    sim::{Call, When},
};

/// The furthest that a clock jumps ahead, in milliseconds.
const JUMP_MAX_MS: u64 = 60_000;
/// Orders that can be slow, or fail in their middle.
const CALLS: [Call; 9] = [
    Call::Create,
    Call::Destroy,
    Call::Pause,
    Call::Resume,
    Call::Snapshot,
    Call::Import,
    Call::DeleteImage,
    Call::List,
    Call::Guest,
];

/// What may happen by itself.
#[derive(Debug, Clone, Copy)]
enum Event {
    Cut,
    Silence,
    RestartHost,
    FillStore,
    FillHost,
    SlowDisk,
    Jump,
    Harm,
    Newer,
    Stranger,
    HostPauses,
    Kill,
    FailInside,
    QueueAway,
}

fn possible(weather: &Weather) -> Vec<Event> {
    let all = [
        (weather.partitions, Event::Cut),
        (weather.silence, Event::Silence),
        (weather.host_restarts, Event::RestartHost),
        (weather.full_disks, Event::FillStore),
        (weather.full_disks, Event::FillHost),
        (weather.slow_disks, Event::SlowDisk),
        (weather.slow_disks, Event::FailInside),
        (weather.clock_jumps, Event::Jump),
        (weather.harm, Event::Harm),
        (weather.newer, Event::Newer),
        (weather.strangers, Event::Stranger),
        (weather.host_pauses, Event::HostPauses),
        (weather.crashes, Event::Kill),
        (weather.queue_away, Event::QueueAway),
    ];
    let chosen = all.iter().filter(|(there, _)| *there);
    chosen.map(|(_, event)| *event).collect()
}

/// Makes things happen until it is aborted.
pub(super) async fn reign(world: Arc<World>, planes: Arc<Planes>) {
    let (events, pause_ms) = {
        let weather = &world.lock().weather;
        (possible(weather), weather.events)
    };
    let Some(pause_ms) = pause_ms.filter(|_| !events.is_empty()) else {
        return;
    };
    loop {
        let (pause, event) = {
            let rng = &mut world.lock().rng;
            (rng.millis(0, pause_ms * 2), rng.pick(&events))
        };
        tokio::time::sleep(pause).await;
        if let Some(event) = event {
            world.happen(event, &planes).await;
        }
    }
}

impl World {
    async fn happen(&self, event: Event, planes: &Planes) {
        self.note("event", event as u128, || format!("{event:?}"));
        match event {
            Event::Cut => {
                let (plane, peer, lasting) = {
                    let rng = &mut self.lock().rng;
                    let peer = if rng.coin() { Peer::Store } else { Peer::Host };
                    (rng.index(planes.len()), peer, rng.millis(100, 30_000))
                };
                self.set_cut(plane, peer, true);
                tokio::time::sleep(lasting).await;
                self.set_cut(plane, peer, false);
            }
            Event::Silence => {
                let lasting = self.some_time(60_000);
                for plane in 0..planes.len() {
                    self.set_cut(plane, Peer::Host, true);
                }
                tokio::time::sleep(lasting).await;
                for plane in 0..planes.len() {
                    self.set_cut(plane, Peer::Host, false);
                }
            }
            Event::RestartHost => {
                self.host.restart();
                self.host_died.notify_waiters();
            }
            Event::FillStore => {
                self.lock().store_full = true;
                tokio::time::sleep(self.some_time(20_000)).await;
                self.lock().store_full = false;
            }
            Event::FillHost => {
                self.lock().host_full = true;
                tokio::time::sleep(self.some_time(20_000)).await;
                self.lock().host_full = false;
            }
            Event::QueueAway => {
                self.lock().queue_away = true;
                tokio::time::sleep(self.some_time(20_000)).await;
                self.lock().queue_away = false;
            }
            Event::SlowDisk => {
                let call = self.lock().rng.pick(&CALLS);
                let duration = self.some_time(20_000);
                let delivery = self.chance(5000);
                if let Some(call) = call {
                    match delivery {
                        true => self.host.delay_delivery(call, duration),
                        false => self.host.delay(call, duration),
                    }
                }
                tokio::time::sleep(self.some_time(20_000)).await;
                self.host.heal();
            }
            Event::FailInside => {
                let (call, error, when) = {
                    let rng = &mut self.lock().rng;
                    let error = match rng.coin() {
                        true => HostError::Unavailable("injected".to_owned()),
                        false => HostError::Internal("injected".to_owned()),
                    };
                    let when = [When::Before, When::During, When::After];
                    (rng.pick(&CALLS), error, rng.pick(&when))
                };
                if let (Some(call), Some(when)) = (call, when) {
                    self.host.fail(call, when, error);
                }
            }
            Event::Jump => {
                let (plane, by) = {
                    let rng = &mut self.lock().rng;
                    (rng.index(planes.len()), rng.below(JUMP_MAX_MS))
                };
                planes.plane(plane).jump(by.cast_signed());
            }
            Event::Harm => {
                if let Some(id) = self.some_machine() {
                    let ends = self.chance(5000);
                    self.book(|book| {
                        book.harmed.insert(id);
                        book.disturb(id);
                    });
                    match ends {
                        true => self.host.end_machine(id, "it powered off"),
                        false => self.host.lose_machine(id),
                    }
                }
            }
            // As where the store was restored from a backup.
            Event::Newer => {
                if let Some(id) = self.some_machine() {
                    let machines = self.host.machines();
                    let machine = machines.iter().find(|machine| machine.id == id);
                    let generation = machine.map_or(1, |machine| machine.generation);
                    self.book(|book| {
                        book.harmed.insert(id);
                        book.disturb(id);
                    });
                    self.host.put_machine(id, generation + 3);
                }
            }
            Event::Stranger => {
                let number = 1000 + u128::from(self.below(1000));
                match self.chance(5000) {
                    true => {
                        let id = SandboxId::from_uuid(Uuid::from_u128(number));
                        self.host.put_machine(id, 1);
                    }
                    false => {
                        let id = TemplateId::from_uuid(Uuid::from_u128(number));
                        self.host.put_image(id);
                    }
                }
            }
            Event::HostPauses => {
                if let Some(id) = self.some_machine() {
                    self.book(|book| {
                        book.host_paused.insert(id);
                        book.disturb(id);
                    });
                    self.host.pause_machine(id);
                }
            }
            Event::Kill => {
                let (plane, gently) = {
                    let rng = &mut self.lock().rng;
                    (rng.index(planes.len()), rng.chance(3000))
                };
                planes.plane(plane).end(gently);
            }
        }
    }

    fn some_time(&self, most_ms: u64) -> Duration {
        self.lock().rng.millis(1, most_ms)
    }

    fn set_cut(&self, plane: usize, peer: Peer, cut: bool) {
        if let Some(lines) = self.lock().cut.get_mut(plane) {
            lines[peer as usize] = cut;
        }
    }

    fn some_machine(&self) -> Option<SandboxId> {
        let machines = self.host.machines();
        let rng = &mut self.lock().rng;
        let ids: Vec<SandboxId> = machines.iter().map(|machine| machine.id).collect();
        rng.pick(&ids)
    }

    /// From now on nothing goes wrong.
    pub(super) fn clear_up(&self) {
        self.host.heal();
        let inner = &mut *self.lock();
        inner.weather = Weather::calm();
        inner.faults_over = true;
        inner.store_full = false;
        inner.host_full = false;
        inner.queue_away = false;
        for lines in &mut inner.cut {
            *lines = [false; 2];
        }
    }
}
