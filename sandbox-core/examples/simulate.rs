//! Simulated platforms, as many as one likes, on all cores.
//!
//! `simulate 1000000 [FIRST]` lives that many seeds and prints those that broke something;
//! `simulate --seed 42` lives one and prints all that happened in it.

use std::{
    io::{self, Write as _},
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, bail};
use sandbox_core::sim::world::{Options, simulate};

/// Failures that are told in full.
const TOLD_MAX: u64 = 20;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--seed", seed] => replay(number(seed)?),
        [seeds] => many(number(seeds)?, 0),
        [seeds, first] => many(number(seeds)?, number(first)?),
        _ => bail!("usage: simulate SEEDS [FIRST] | simulate --seed SEED"),
    }
}

fn number(text: &str) -> anyhow::Result<u64> {
    text.parse()
        .with_context(|| format!("`{text}` is not a number"))
}

fn replay(seed: u64) -> anyhow::Result<()> {
    let outcome = simulate(
        seed,
        Options {
            trace: true,
            ..Options::default()
        },
    );
    let mut out = io::stdout().lock();
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(
        out,
        "seed {seed}: {} events in {:?}, hash {:016x}",
        outcome.events, outcome.simulated, outcome.hash
    )?;
    for violation in &outcome.violations {
        writeln!(out, "  {violation}")?;
    }
    if !outcome.violations.is_empty() {
        bail!("seed {seed} broke something");
    }
    Ok(())
}

fn many(seeds: u64, first: u64) -> anyhow::Result<()> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let (next, failed, events) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let out = Mutex::new(io::stdout());
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let taken = next.fetch_add(1, Ordering::Relaxed);
                    if taken >= seeds {
                        break;
                    }
                    let outcome = simulate(first + taken, Options::default());
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    let Some(violation) = outcome.violations.first() else {
                        continue;
                    };
                    if failed.fetch_add(1, Ordering::Relaxed) < TOLD_MAX {
                        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                        // Whoever reads along may have gone; the count at the end is what matters.
                        let _ = writeln!(out, "seed {}: {violation}", outcome.seed);
                    }
                }
            });
        }
    });
    let took = began.elapsed();
    let failed = failed.into_inner();
    let mut out = out.into_inner().unwrap_or_else(PoisonError::into_inner);
    writeln!(
        out,
        "{seeds} seeds from {first}: {failed} broke something; {:.0} s, {:.0} a second on each of \
         {cores} cores, {} events each",
        took.as_secs_f64(),
        seeds as f64 / took.as_secs_f64() / cores as f64,
        events.into_inner() / seeds.max(1),
    )?;
    if failed > 0 {
        bail!("replay one with: simulate --seed SEED");
    }
    Ok(())
}
