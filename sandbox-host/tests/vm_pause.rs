//! Pausing and resuming real machines: what must survive, and what must not be left.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use std::time::{Duration, Instant, SystemTime};

use sandbox_core::{
    guest::CallError,
    host::{Host, HostError, HostOrder, HostSandboxState},
};
use sandbox_host::testkit::machine_files;
use vm_support::Fixture;

#[expect(clippy::disallowed_methods, reason = "a guest's clock is the real one")]
fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_all_that_runs_survives_a_pause_and_a_restart_of_the_host() {
    let mut vm = Fixture::new().await;
    let id = vm.create().await;
    let line = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let mut counter = vm.start(id, line).await;
    let mut counted = counter.hear("5").await;
    let mut shell = vm.start(id, "exec sh").await;
    shell
        .say("exec 3</etc/passwd; read a <&3; mine=$$; echo $a")
        .await;
    shell.hear("/bin/sh").await;
    vm.start(id, "exec nc -ll -p 7000 -e cat").await;
    let line =
        "while ! nc -w 1 127.0.0.1 7000 </dev/null; do sleep 0.1; done; exec nc 127.0.0.1 7000";
    let mut talk = vm.start(id, line).await;
    talk.say("before").await;
    talk.hear("before").await;
    vm.run(
        id,
        "echo kept > /dev/shm/note; echo written > /root/file; date +%s > /root/then",
    )
    .await;
    let pids = [counter.pid, shell.pid, talk.pid];
    let offsets = [counter.offset, shell.offset, talk.offset];

    vm.pause(id).await;
    assert_eq!(vm.state(id).await, Some(HostSandboxState::Paused));
    assert_eq!(vm.machine_pids(), [0i32; 0], "no process while paused");
    assert_eq!(vm.host.pid_of(id), None);
    assert_eq!(vm.machine_files(), machine_files::PAUSED);
    let asleep = vm.host.guest(id).ping().await;
    assert_eq!(
        asleep,
        Err(CallError::NotRunning("it is paused".to_owned()))
    );

    vm.restart().await;
    assert_eq!(vm.state(id).await, Some(HostSandboxState::Paused));
    // Long enough for a clock that stood still to be seen.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = unix_time();
    vm.resume(id).await;
    assert_eq!(vm.state(id).await, Some(HostSandboxState::Running));
    let now: u64 = vm.run(id, "date +%s").await.parse().unwrap();
    assert!((before..=unix_time() + 1).contains(&now), "{before} {now}");

    let [mut counter, mut shell, mut talk] =
        [0, 1, 2].map(|n: usize| vm.process(id, pids[n], offsets[n]));
    counted.push_str(&counter.read(5000).await.0);
    counted.push_str(&counter.read(5000).await.0);
    let numbers: Vec<u64> = counted.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 5);
    assert!(
        (1..)
            .zip(&numbers)
            .all(|(expected, found)| expected == *found),
        "{numbers:?}"
    );
    shell
        .say("read b <&3; echo $b; test $mine = $$ && echo same")
        .await;
    let heard = shell.hear("same").await;
    assert!(
        heard.starts_with("daemon:"),
        "the next line of the open file: {heard}"
    );
    talk.say("after").await;
    assert_eq!(talk.hear("after").await.trim(), "after");
    assert_eq!(
        vm.run(id, "cat /dev/shm/note /root/file").await,
        "kept\nwritten"
    );
    assert_eq!(vm.machine_files(), machine_files::RUNNING);

    // As it ends that has never been paused.
    let _ = vm
        .host
        .guest(id)
        .start_process(
            sandbox_core::process::ProcessSpec::shell("poweroff -f"),
            Duration::from_secs(1),
        )
        .await;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match vm.state(id).await {
            Some(HostSandboxState::Stopped { reason }) => {
                assert_eq!(reason, "the guest powered off");
                break;
            }
            state => assert!(Instant::now() < until, "{state:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let order = vm.next_order(id);
    let refused = vm.host.pause_sandbox(order).await;
    assert!(
        matches!(refused, Err(HostError::WrongState { .. })),
        "{refused:?}"
    );
    vm.end(&[id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r13_orders_out_of_date_change_nothing_and_done_ones_are_done() {
    let mut vm = Fixture::new().await;
    let id = vm.create().await;
    let order = |generation, order| HostOrder {
        id,
        generation,
        order,
    };
    vm.host.pause_sandbox(order(1, 5)).await.unwrap();
    vm.host.pause_sandbox(order(1, 5)).await.unwrap();
    assert_eq!(
        vm.host.resume_sandbox(order(1, 4)).await,
        Err(HostError::StaleOrder {
            ordered: 4,
            present: 5
        })
    );
    assert_eq!(
        vm.host.resume_sandbox(order(0, 9)).await,
        Err(HostError::StaleGeneration {
            ordered: 0,
            present: 1
        })
    );
    vm.restart().await;
    assert_eq!(
        vm.host.resume_sandbox(order(1, 4)).await,
        Err(HostError::StaleOrder {
            ordered: 4,
            present: 5
        }),
        "the manifest keeps it"
    );
    vm.host.resume_sandbox(order(1, 6)).await.unwrap();
    vm.host.resume_sandbox(order(1, 6)).await.unwrap();
    assert_eq!(vm.run(id, "echo here").await, "here");
    vm.host.pause_sandbox(order(1, 7)).await.unwrap();
    vm.host.destroy_sandbox(id, 1).await.unwrap();
    assert_eq!(
        vm.host.resume_sandbox(order(1, 8)).await,
        Err(HostError::UnknownSandbox(id))
    );
    vm.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_25_thirty_pauses_cost_what_the_first_did() {
    let mut vm = Fixture::new().await;
    let id = vm.create().await;
    let counter = vm
        .start(id, "while :; do date > /root/now; sleep 0.01; done")
        .await
        .pid;
    let mut deltas = Vec::new();
    for _ in 0..30 {
        vm.pause(id).await;
        let size = |name: &str| {
            let folder = std::fs::read_dir(vm.data().join("machines"))
                .unwrap()
                .next();
            let folder = folder.unwrap().unwrap().path();
            std::fs::metadata(folder.join(name)).unwrap().len()
        };
        deltas.push(size("memory.delta"));
        assert_eq!(vm.machine_files().len(), 5, "no new layer");
        vm.resume(id).await;
    }
    let alive = vm.process(id, counter, 0).read(0).await.1;
    assert_eq!(alive, None);
    // What the guest itself has written to meanwhile is in it, and nothing twice.
    let (tenth, last) = (deltas[9], deltas[29]);
    assert!(last < tenth + tenth / 4, "the delta grows: {deltas:?}");
    vm.end(&[id]).await;
}
