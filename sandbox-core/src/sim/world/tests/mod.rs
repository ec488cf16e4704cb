//! The simulation, many times over.
//!
//! `SANDBOX_SIM_SEEDS=N` lives that many seeds instead of the usual number, `SANDBOX_SIM_SEED=X` one
//! of them with all that happens in it printed.

mod crash_points;
#[cfg(feature = "planted-bugs")]
mod planted;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::*;

/// Seeds of a usual run.
const SEEDS: u64 = 2000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: `{text}` is not a number")),
    )
}

/// Lives all these seeds, on all cores.
fn live_all(seeds: std::ops::Range<u64>, each: impl Fn(Outcome) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    each(simulate(seed, Options::default()));
                }
            });
        }
    });
}

fn assert_unbroken(outcome: &Outcome) {
    let Outcome {
        seed, violations, ..
    } = outcome;
    assert!(
        violations.is_empty(),
        "seed {seed} (SANDBOX_SIM_SEED={seed} prints all that happened): {violations:#?}"
    );
}

#[test]
fn no_life_of_the_platform_breaks_a_promise() {
    if let Some(seed) = number("SANDBOX_SIM_SEED") {
        let options = Options {
            trace: true,
            ..Options::default()
        };
        let outcome = simulate(seed, options);
        for line in &outcome.trace {
            println!("{line}");
        }
        return assert_unbroken(&outcome);
    }
    let seeds = number("SANDBOX_SIM_SEEDS").unwrap_or(SEEDS);
    live_all(0..seeds, |outcome| assert_unbroken(&outcome));
}

#[test]
fn one_seed_is_one_life_and_watching_changes_nothing() {
    for seed in 0..40 {
        let watched = Options {
            trace: true,
            ..Options::default()
        };
        let (first, again) = (simulate(seed, Options::default()), simulate(seed, watched));
        assert_eq!(
            (first.hash, first.events),
            (again.hash, again.events),
            "seed {seed}"
        );
        assert_eq!(first.simulated, again.simulated, "seed {seed}");
        assert_eq!(again.events, again.trace.len() as u64);
    }
    let (one, other) = (
        simulate(1, Options::default()),
        simulate(2, Options::default()),
    );
    assert_ne!(one.hash, other.hash);
}

#[test]
fn on_a_fine_day_whatever_was_asked_for_is_done() {
    for seed in 0..40 {
        let calm = Options {
            calm: true,
            ..Options::default()
        };
        let outcome = simulate(seed, calm);
        assert_unbroken(&outcome);
        let befallen = outcome.steps.values().flat_map(BTreeMap::keys);
        assert!(befallen.flatten().next().is_none(), "seed {seed}");
    }
}
