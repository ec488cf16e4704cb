//! A host behind its RPC gives the results of the host itself.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod rpc_support;

use std::{sync::Arc, time::Duration};

use rpc_support::{World, id, made, order};
use sandbox_core::{
    guest::Guest,
    host::{Host, HostError, HostImport, HostOrder, HostSnapshot},
    id::TemplateId,
    sim::{Call, SimHost, When},
    template::ImportSource,
};
use uuid::Uuid;

async fn with_remote(test: impl AsyncFnOnce(&dyn Guest)) {
    let world = World::new();
    let _serving = world.serve().await;
    let id = made(&world.host, 1).await;
    let guest = world.remote().guest(id);
    test(&*guest).await;
}

sandbox_host::guest_contract_tests! { with_remote:
    files:
        r6_a_written_file_reads_back_byte_for_byte
        r6_an_empty_file_survives
        r6_nothing_shows_before_the_commit_and_all_of_it_after
        r6_an_aborted_write_leaves_nothing
        r6_a_replaced_file_keeps_its_mode_unless_told
        r6_make_rename_and_remove
        r6_bad_paths_are_refused
        r6_a_large_file_in_pieces_of_any_order;
    processes:
        r5_an_ended_process_is_remembered_and_takes_no_signals
        r5_an_unknown_process_is_an_error;
    output:
        r5_a_detached_log_never_holds_up
        r5_a_long_poll_ends_when_its_time_is_up;
    input:
        r5_piped_input_goes_in_by_pieces
        r5_a_process_that_does_not_read_takes_only_so_much;
}

fn image(number: u128) -> TemplateId {
    TemplateId::from_uuid(Uuid::from_u128(number))
}

/// All orders, good ones and bad ones, and what came of each.
async fn told(host: &dyn Host, sim: &SimHost) -> Vec<String> {
    let mut told = Vec::new();
    let mut tell = |what: &str, result: String| told.push(format!("{what}: {result}"));
    let at = |number, order| HostOrder {
        id: id(number),
        generation: 1,
        order,
    };
    let snapshot = |number, order, image, resume| HostSnapshot {
        order: at(number, order),
        image,
        resume,
        env: std::collections::BTreeMap::new(),
    };
    tell("hello", format!("{:?}", host.hello().await));
    tell(
        "create",
        format!("{:?}", host.create_sandbox(order(1, 1)).await),
    );
    tell(
        "again",
        format!("{:?}", host.create_sandbox(order(1, 1)).await),
    );
    tell(
        "older",
        format!("{:?}", host.create_sandbox(order(1, 0)).await),
    );
    tell("pause", format!("{:?}", host.pause_sandbox(at(1, 4)).await));
    tell("again", format!("{:?}", host.pause_sandbox(at(1, 4)).await));
    tell(
        "stale",
        format!("{:?}", host.resume_sandbox(at(1, 3)).await),
    );
    tell(
        "resume",
        format!("{:?}", host.resume_sandbox(at(1, 5)).await),
    );
    tell(
        "nobody",
        format!("{:?}", host.pause_sandbox(at(2, 1)).await),
    );
    let first = snapshot(1, 6, image(10), true);
    tell(
        "snapshot",
        format!("{:?}", host.create_snapshot(first.clone()).await),
    );
    tell(
        "again",
        format!("{:?}", host.create_snapshot(first.clone()).await),
    );
    let flat = snapshot(1, 7, image(11), false);
    tell(
        "flatten",
        format!("{:?}", host.flatten_rootfs(flat.clone()).await),
    );
    let nobody = snapshot(2, 1, image(12), false);
    tell(
        "nobody",
        format!("{:?}", host.flatten_rootfs(nobody.clone()).await),
    );
    let import = HostImport {
        image: image(13),
        source: ImportSource::Tar {
            path: "/no/such/tar".to_owned(),
        },
    };
    tell("import", format!("{:?}", host.import_image(import).await));
    tell(
        "delete",
        format!("{:?}", host.delete_snapshot(image(10)).await),
    );
    tell(
        "nothing",
        format!("{:?}", host.delete_snapshot(image(99)).await),
    );
    let report = host.list_sandboxes().await.unwrap();
    tell(
        "changed",
        format!("{:?}", host.changed(0, Duration::ZERO).await),
    );
    tell("report", format!("{report:?}"));
    for error in every_error() {
        sim.fail(Call::Destroy, When::Before, error);
        tell(
            "error",
            format!("{:?}", host.destroy_sandbox(id(1), 1).await),
        );
    }
    tell(
        "destroy",
        format!("{:?}", host.destroy_sandbox(id(1), 1).await),
    );
    tell(
        "again",
        format!("{:?}", host.destroy_sandbox(id(1), 1).await),
    );
    tell("guest", format!("{:?}", host.guest(id(1)).ping().await));
    told
}

fn every_error() -> Vec<HostError> {
    let words = || "words".to_owned();
    vec![
        HostError::UnknownTemplate { name: words() },
        HostError::UnknownSandbox(id(7)),
        HostError::UnknownImage(image(7)),
        HostError::ImageExists(image(7)),
        HostError::WrongState {
            state: words(),
            reason: words(),
        },
        HostError::BadSource(words()),
        HostError::Incompatible(words()),
        HostError::StaleOrder {
            ordered: 1,
            present: u64::MAX,
        },
        HostError::Unsupported(words()),
        HostError::StaleGeneration {
            ordered: 1,
            present: 2,
        },
        HostError::Capacity(words()),
        HostError::DiskTooSmall {
            asked_mb: 1,
            needed_mb: 2,
        },
        HostError::DiskFull {
            place: words(),
            free_mb: 1,
            needed_mb: 2,
        },
        HostError::NotSetUp {
            missing: words(),
            mend: words(),
        },
        HostError::Boot(words()),
        HostError::Unavailable(words()),
        HostError::Internal(words()),
    ]
}

#[tokio::test]
async fn every_order_and_every_error_is_the_same_through_the_rpc() {
    let direct = World::new();
    let expected = told(&direct.host, &direct.host).await;
    let world = World::new();
    let _serving = world.serve().await;
    let remote: Arc<dyn Host> = Arc::new(world.remote());
    let got = told(&*remote, &world.host).await;
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected);
    }
    assert_eq!(got.len(), expected.len());
    assert!(expected.iter().any(|line| line.contains("StaleOrder")));
}

#[tokio::test]
async fn a_change_is_told_to_whoever_waits_for_it() {
    let world = World::new();
    let _serving = world.serve().await;
    let remote = world.remote();
    let seen = remote.list_sandboxes().await.unwrap().sequence;
    let waiting = tokio::spawn({
        let remote = remote.clone();
        async move { remote.changed(seen, rpc_support::LONG).await }
    });
    made(&world.host, 1).await;
    assert!(waiting.await.unwrap().unwrap() > seen);
}

#[tokio::test]
async fn two_control_planes_see_one_host() {
    let world = World::new();
    let _serving = world.serve().await;
    let (one, two) = (world.remote(), world.remote());
    one.create_sandbox(order(1, 1)).await.unwrap();
    two.create_sandbox(order(2, 1)).await.unwrap();
    let seen = one.list_sandboxes().await.unwrap();
    assert_eq!(seen, two.list_sandboxes().await.unwrap());
    assert_eq!(seen.sandboxes.len(), 2);
    drop(one);
    two.guest(id(1)).ping().await.unwrap();
}
