//! How bad things are: which faults there are in a world at all, and how often.
//!
//! Not every world has every fault. One that has few shows what another fault would cover up: where
//! engines crash all the time, nobody notices that a wake-up was lost.

use std::time::Duration;

use super::{
    rng::Rng,
    steps::{Fault, Step},
};

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Deliver,
    Fault(Fault),
    /// Whoever asked is told that it failed, and so much later it happens after all.
    Late(Duration),
}

/// A fault ordered for a step: it strikes when the step is taken for the `nth` time, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directed {
    /// Which step.
    pub step: Step,
    /// What befalls it.
    pub fault: Fault,
    /// How many times the step is spared before.
    pub spared: u32,
}

/// How often things go wrong, in ten thousand requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Weather {
    pub(super) fail_before: u64,
    pub(super) fail_after: u64,
    pub(super) crash_before: u64,
    pub(super) crash_after: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
    /// How often a request or a reply takes time, and how much at most.
    pub(super) slow: u64,
    pub(super) slow_max_ms: u64,
    /// Pauses between the things that happen by themselves; none where absent.
    pub(super) events: Option<u64>,
    pub(super) partitions: bool,
    pub(super) silence: bool,
    pub(super) stale_reports: bool,
    pub(super) host_restarts: bool,
    pub(super) full_disks: bool,
    pub(super) slow_disks: bool,
    pub(super) slow_host: bool,
    pub(super) clock_jumps: bool,
    pub(super) harm: bool,
    pub(super) newer: bool,
    pub(super) strangers: bool,
    pub(super) host_pauses: bool,
    pub(super) absent_at_work: bool,
    pub(super) crashes: bool,
    /// How often something befalls a wake-up of the queue.
    pub(super) queue: u64,
    pub(super) queue_away: bool,
}

impl Weather {
    /// Nothing goes wrong.
    pub(super) fn calm() -> Self {
        Self {
            slow: 1000,
            slow_max_ms: 5,
            ..Self::default()
        }
    }

    pub(super) fn draw(rng: &mut Rng) -> Self {
        // One world in eight is a fine day: what goes wrong there is nobody's fault but ours.
        if rng.chance(1250) {
            return Self {
                slow: 5000,
                slow_max_ms: 1 + rng.below(300),
                events: Some(4000),
                host_pauses: rng.coin(),
                absent_at_work: rng.coin(),
                ..Self::default()
            };
        }
        let mut rate = |most: u64| match rng.below(3) {
            0 => 0,
            1 => rng.below(most / 4 + 1),
            _ => rng.below(most + 1),
        };
        Self {
            fail_before: rate(600),
            fail_after: rate(600),
            crash_before: rate(100),
            crash_after: rate(100),
            twice: rate(600),
            late: rate(300),
            slow: rate(6000),
            slow_max_ms: match rng.below(4) {
                0 => 5,
                1 => 50,
                2 => 500,
                _ => 6000,
            },
            events: Some(1000 + rng.below(9000)),
            partitions: rng.chance(4000),
            silence: rng.chance(3000),
            stale_reports: rng.chance(3000),
            host_restarts: rng.chance(4000),
            full_disks: rng.chance(3000),
            slow_disks: rng.chance(4000),
            slow_host: rng.chance(2000),
            clock_jumps: rng.chance(3000),
            harm: rng.chance(2500),
            newer: rng.chance(600),
            strangers: rng.chance(3000),
            host_pauses: rng.chance(3000),
            absent_at_work: rng.coin(),
            crashes: rng.chance(5000),
            queue: match rng.coin() {
                true => 0,
                false => rng.below(6000),
            },
            queue_away: rng.chance(3000),
        }
    }

    /// What becomes of a step.
    pub(super) fn fate(&self, rng: &mut Rng) -> Fate {
        let dice = rng.below(10_000);
        let mut bound = 0;
        let mut falls = |share: u64| {
            bound += share;
            dice < bound
        };
        for (share, fault) in [
            (self.fail_before, Fault::FailBefore),
            (self.fail_after, Fault::FailAfter),
            (self.crash_before, Fault::CrashBefore),
            (self.crash_after, Fault::CrashAfter),
            (self.twice, Fault::Twice),
        ] {
            if falls(share) {
                return Fate::Fault(fault);
            }
        }
        match falls(self.late) {
            true => Fate::Late(rng.millis(1, 30_000)),
            false => Fate::Deliver,
        }
    }

    /// How long a message is under way.
    pub(super) fn transit(&self, rng: &mut Rng) -> Duration {
        match rng.chance(self.slow) {
            true => rng.millis(1, self.slow_max_ms),
            false => Duration::ZERO,
        }
    }
}
