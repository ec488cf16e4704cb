//! What the simulated host promises beyond what the engine's tests show.

use super::*;
use crate::{host::HostSnapshot, sim::SimClock, template::ImportSource};

const SECOND: Duration = Duration::from_secs(1);

fn host() -> SimHost {
    SimHost::new(Arc::new(SimClock::new()))
}

fn sandbox(number: u128) -> SandboxId {
    SandboxId::from_uuid(Uuid::from_u128(number))
}

fn image(number: u128) -> TemplateId {
    TemplateId::from_uuid(Uuid::from_u128(number))
}

fn create(number: u128, image: TemplateId) -> HostCreate {
    HostCreate {
        id: sandbox(number),
        generation: 1,
        template: "any".parse().unwrap(),
        image,
        size: MachineSize::default(),
        env: BTreeMap::new(),
    }
}

fn order(number: u128, order: u64) -> HostOrder {
    HostOrder {
        id: sandbox(number),
        generation: 1,
        order,
    }
}

fn snapshot(number: u128, at: u64, of: u128, resume: bool) -> HostSnapshot {
    HostSnapshot {
        order: order(number, at),
        image: image(of),
        resume,
        env: BTreeMap::new(),
    }
}

async fn with_machine() -> SimHost {
    let host = host();
    let order = create(1, MINIMAL_TEMPLATE_ID);
    host.create_sandbox(order).await.unwrap();
    host
}

fn state(host: &SimHost) -> HostSandboxState {
    host.machines()[0].state.clone()
}

#[tokio::test(start_paused = true)]
async fn an_order_twice_does_what_it_does_once() {
    let host = with_machine().await;
    for _ in 0..2 {
        host.pause_sandbox(order(1, 2)).await.unwrap();
        assert_eq!(state(&host), HostSandboxState::Paused);
    }
    for _ in 0..2 {
        host.resume_sandbox(order(1, 3)).await.unwrap();
        assert_eq!(state(&host), HostSandboxState::Running);
    }
    let first = host.create_snapshot(snapshot(1, 4, 9, true)).await.unwrap();
    let second = host.create_snapshot(snapshot(1, 4, 9, true)).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(host.images(), vec![first]);
    assert_eq!(state(&host), HostSandboxState::Running);
    for _ in 0..2 {
        let deleted = host.delete_snapshot(image(9)).await.unwrap();
        assert_eq!(deleted, ImageDeletion::Freed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_older_than_the_newest_taken_is_refused() {
    let host = with_machine().await;
    host.pause_sandbox(order(1, 7)).await.unwrap();
    let stale = host.resume_sandbox(order(1, 6)).await;
    let expected = HostError::StaleOrder {
        ordered: 6,
        present: 7,
    };
    assert_eq!(stale, Err(expected));
    assert_eq!(state(&host), HostSandboxState::Paused);
    host.destroy_sandbox(sandbox(1), 2).await.unwrap();
    let gone = host.resume_sandbox(order(1, 8)).await;
    assert!(matches!(gone, Err(HostError::StaleGeneration { .. })));
    let unknown = host.resume_sandbox(order(2, 8)).await;
    assert_eq!(unknown, Err(HostError::UnknownSandbox(sandbox(2))));
}

#[tokio::test(start_paused = true)]
async fn orders_for_one_machine_are_worked_off_one_after_the_other() {
    let host = with_machine().await;
    host.delay(Call::Snapshot, SECOND * 5);
    host.delay(Call::Resume, SECOND);
    let resume = async {
        host.shared.clock.sleep(SECOND).await;
        host.resume_sandbox(order(1, 3)).await
    };
    let (made, resumed) = tokio::join!(host.create_snapshot(snapshot(1, 2, 9, false)), resume);
    made.unwrap();
    resumed.unwrap();
    assert_eq!(state(&host), HostSandboxState::Running);
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_without_whoever_ordered_it_but_not_without_the_host() {
    for dies in [false, true] {
        let host = with_machine().await;
        host.delay(Call::Snapshot, SECOND * 5);
        let made = host.create_snapshot(snapshot(1, 2, 9, true));
        let cut = tokio::time::timeout(SECOND, made).await;
        assert!(cut.is_err());
        assert_eq!(
            state(&host),
            HostSandboxState::Paused,
            "out of the live map"
        );
        assert!(host.machines()[0].at_work);
        if dies {
            host.restart();
        }
        host.shared.clock.sleep(SECOND * 10).await;
        assert_eq!(host.images().is_empty(), dies);
        let expected = if dies {
            HostSandboxState::Paused
        } else {
            HostSandboxState::Running
        };
        assert_eq!(state(&host), expected);
        assert!(!host.machines()[0].at_work);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_at_work_is_shown_as_was_chosen() {
    for window in [Window::Absent, Window::Paused] {
        let host = with_machine().await;
        host.show_at_work(window);
        host.delay(Call::Snapshot, SECOND * 5);
        let look = async {
            host.shared.clock.sleep(SECOND).await;
            host.list_sandboxes().await.unwrap().sandboxes.len()
        };
        let (made, shown) = tokio::join!(host.flatten_rootfs(snapshot(1, 2, 9, true)), look);
        made.unwrap();
        assert_eq!(shown == 0, window == Window::Absent);
        assert_eq!(state(&host), HostSandboxState::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn r26_an_image_in_use_goes_with_its_last_user_and_takes_no_new_ones() {
    let host = with_machine().await;
    host.create_snapshot(snapshot(1, 2, 9, true)).await.unwrap();
    host.create_sandbox(create(2, image(9))).await.unwrap();
    assert_eq!(host.images()[0].users, 1);
    let deleted = host.delete_snapshot(image(9)).await.unwrap();
    assert_eq!(deleted, ImageDeletion::InUse);
    assert!(host.images()[0].deleting);
    let refused = host.create_sandbox(create(3, image(9))).await;
    assert_eq!(refused, Err(HostError::UnknownImage(image(9))));
    host.destroy_sandbox(sandbox(2), 2).await.unwrap();
    assert_eq!(host.images(), vec![]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_deleted_while_it_is_made_does_not_come_to_be() {
    let host = with_machine().await;
    host.delay(Call::Import, SECOND * 5);
    let order = HostImport {
        image: image(9),
        source: ImportSource::Directory {
            path: "/srv/root".to_owned(),
        },
    };
    let delete = async {
        host.shared.clock.sleep(SECOND).await;
        host.delete_snapshot(image(9)).await
    };
    let (made, deleted) = tokio::join!(host.import_image(order.clone()), delete);
    assert_eq!(made, Err(HostError::UnknownImage(image(9))));
    assert_eq!(deleted, Ok(ImageDeletion::Freed));
    assert_eq!(host.images(), vec![]);
    host.import_image(order).await.unwrap();
    assert_eq!(host.images().len(), 1);
}
