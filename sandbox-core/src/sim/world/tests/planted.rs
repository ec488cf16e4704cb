//! A proof that can't fail proves nothing: each known mistake, put back, is found.

use super::*;
use crate::planted::Bug;

/// Seeds in which a mistake must show.
const SEEDS: u64 = 10_000;

/// The first seed that shows the mistake, and how it shows.
fn found(bug: Bug) -> Option<(u64, String)> {
    bug.during(|| {
        (0..SEEDS).find_map(|seed| {
            let outcome = simulate(seed, Options::default());
            let violation = outcome.violations.into_iter().next()?;
            Some((seed, violation))
        })
    })
}

#[test]
fn every_known_mistake_is_found() {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(bug) = Bug::ALL.get(number) else {
                        break;
                    };
                    let shown = found(*bug);
                    let (seed, how) = shown.unwrap_or_else(|| panic!("{bug:?} was not found"));
                    println!("{bug:?}: seed {seed}: {how:.120}");
                }
            });
        }
    });
}
