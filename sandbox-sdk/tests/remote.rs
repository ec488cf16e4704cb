//! The SDK over every kind of connection: the same calls, types and errors. The platform behind is
//! the real engine on a simulated host; `sandbox-api/tests/vm_sdk_suite` has the same on real VMs.

#![cfg(feature = "rpc-server")]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "not every test target uses all of it")]
mod remote_support;
#[macro_use]
mod suite;

use remote_support::World;
use sandbox_sdk::Client;

/// Each of these runs against the engine itself, over a unix socket, and over TCP.
macro_rules! everywhere {
    ($($test:ident)*) => {
        mod embedded { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                super::with_sandbox(&world.local(), super::suite::$test).await;
            }
        )* }
        mod unix { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                let serving = world.serve_unix().await;
                super::with_sandbox(&serving.connect().await, super::suite::$test).await;
                serving.stop().await;
            }
        )* }
        mod tcp { $(
            #[tokio::test]
            async fn $test() {
                let world = super::World::new().await;
                let serving = world.serve("tcp:127.0.0.1:0").await;
                super::with_sandbox(&serving.connect().await, super::suite::$test).await;
                serving.stop().await;
            }
        )* }
    };
}

sdk_suite!(everywhere);

async fn with_sandbox(client: &Client, test: impl AsyncFnOnce(&Client, &sandbox_sdk::Sandbox)) {
    let sandbox = suite::created_and_found(client).await;
    test(client, &sandbox).await;
    suite::destroyed(client, sandbox).await;
}
