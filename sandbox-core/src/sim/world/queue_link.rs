//! The way between an engine and the queue: wake-ups are lost, late and doubled, and the queue is away
//! at times.

use std::sync::Arc;

use super::World;
use crate::{
    id::BuildId,
    sim::{Announced, QueueFaults},
};

pub(super) struct QueueLink(pub(super) Arc<World>);

impl QueueFaults for QueueLink {
    fn announced(&self, id: BuildId) -> Announced {
        let becomes = {
            let inner = &mut *self.0.lock();
            let share = inner.weather.queue;
            match inner.rng.chance(share) {
                false => Announced::Arrives,
                true => match inner.rng.below(4) {
                    0 => Announced::IsLost,
                    1 => Announced::ComesTwice(inner.rng.millis(0, 20_000)),
                    2 => Announced::IsLate(inner.rng.millis(1, 20_000)),
                    _ => Announced::Fails {
                        arrives: inner.rng.coin(),
                    },
                },
            }
        };
        self.0.note("wake-up", id.uuid().as_u128(), || {
            format!("{id} {becomes:?}")
        });
        becomes
    }

    fn is_away(&self) -> bool {
        self.0.lock().queue_away
    }
}
