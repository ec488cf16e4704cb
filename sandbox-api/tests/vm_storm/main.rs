//! Many clients at once do whatever comes to mind with real machines, while `sandbox-hostd` and
//! `sandboxd` are killed again and again. Nothing that was acknowledged is lost, store, inventory and
//! processes agree in the end, and when all is deleted nothing is left.
//!
//! `SANDBOX_STORM_OPERATIONS` says how many operations (200), `SANDBOX_STORM_SEED` which ones.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

mod book;
mod client;
#[path = "../daemon_support/mod.rs"]
mod daemon_support;
mod truth;

use std::time::{Duration, Instant};

use client::Storm;
use daemon_support::{Daemon, Folder, hostd::Hostd};
use futures::future::join_all;
use sandbox_sdk::Client;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const CLIENTS: u64 = 4;
const OPERATIONS: usize = 200;
/// No more often, so that a slow machine gets anything done between them.
const OPERATIONS_PER_KILL: u64 = 8;
const SEED: u64 = 0x5eed_0004;

/// Numbers by chance, the same for the same seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let end = u64::try_from(end).unwrap();
        usize::try_from((mixed ^ (mixed >> 31)) % end).unwrap()
    }
}

/// Both daemons.
struct Daemons {
    hostd: Hostd,
    daemon: Daemon,
}

impl Daemons {
    async fn start(folder: &Folder) -> Self {
        let hostd = Hostd::start(folder).await;
        let daemon = hostd.control(folder).await;
        Self { hostd, daemon }
    }

    /// Kills one of them or both, and starts them again.
    async fn killed(self, folder: &Folder, chance: &mut Chance) -> Self {
        let Self { hostd, daemon } = self;
        match chance.below(4) {
            0 => {
                hostd.kill().await;
                let hostd = Hostd::start(folder).await;
                Self { hostd, daemon }
            }
            1 => {
                hostd.kill().await;
                // And again, while it looks at what it finds.
                let after = Duration::from_millis(chance.below(120) as u64);
                Hostd::die_at_start(folder, after).await;
                let hostd = Hostd::start(folder).await;
                Self { hostd, daemon }
            }
            2 => {
                daemon.kill().await;
                let daemon = hostd.control(folder).await;
                Self { hostd, daemon }
            }
            _ => {
                hostd.kill().await;
                daemon.kill().await;
                Self::start(folder).await
            }
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

#[tokio::test]
async fn r36_a_storm_of_operations_under_killed_daemons_loses_nothing_and_leaves_nothing() {
    let seed = number("SANDBOX_STORM_SEED", SEED);
    let operations = number("SANDBOX_STORM_OPERATIONS", OPERATIONS as u64);
    eprintln!("{operations} operations of SANDBOX_STORM_SEED={seed}");
    let folder = Folder::new().await;
    let mut daemons = Daemons::start(&folder).await;
    let socket = folder.path.join("control/sandboxd.sock");
    let client = Client::connect(format!("unix:{}", socket.display()))
        .await
        .unwrap();
    let storm = Storm::new(client, usize::try_from(operations).unwrap());

    let begun = Instant::now();
    let over = CancellationToken::new();
    let clients = async {
        let clients = (1..=CLIENTS).map(|number| {
            let chance = Chance(seed.wrapping_mul(31).wrapping_add(number));
            storm.run(chance)
        });
        join_all(clients).await;
        over.cancel();
    };
    let killing = async {
        let mut chance = Chance(seed);
        let mut kills = 0;
        loop {
            let calm = Duration::from_millis(200 + 100 * chance.below(15) as u64);
            if kills == operations / OPERATIONS_PER_KILL {
                over.cancelled().await;
            }
            if timeout(calm, over.cancelled()).await.is_ok() {
                return (daemons, kills);
            }
            daemons = daemons.killed(&folder, &mut chance).await;
            kills += 1;
        }
    };
    let ((), (daemons, kills)) = tokio::join!(clients, killing);
    let took = begun.elapsed();
    eprintln!("{kills} kills in {took:.1?}; {}", storm.tally());

    truth::agree(&folder, &storm).await;
    eprintln!("agreed after {:.1?}", begun.elapsed() - took);
    truth::all_is_kept(&storm).await;
    truth::delete_all(&folder, &storm).await;
    drop(storm);
    daemons.daemon.stop().await;
    daemons.hostd.stop().await;
    folder.leftovers.assert_none().await;
}
