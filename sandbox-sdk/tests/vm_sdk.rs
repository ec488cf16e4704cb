//! The SDK against real VMs: what must work. What must work over every kind of connection is in
//! `sandbox-api/tests/vm_sdk_suite`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sandbox_sdk::{Error, PageRequest, Sandbox, SandboxFilter, SandboxState};
use vm_support::{LONG, eventually, lives, text, with_platform, with_pool};

#[tokio::test]
async fn r4_a_sandbox_is_created_with_the_defaults_found_listed_and_destroyed_twice() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let info = sandbox.info().await.unwrap();
        assert_eq!(info.state, SandboxState::Running);
        assert_eq!(info.template.as_str(), "minimal");
        assert_eq!(
            (info.size.vcpus, info.size.memory_mb, info.size.disk_size_mb),
            (1, 512, 5120)
        );
        assert_eq!((info.timeout_sec, info.expires_at), (None, None));
        assert!(info.started_at.is_some() && info.host_id.is_some() && info.operation.is_none());

        let found = platform.client.get(sandbox.id()).await.unwrap();
        assert_eq!(text(found.exec("echo here").await.unwrap()), "here\n");
        let all = platform
            .client
            .list(SandboxFilter::default(), PageRequest::default())
            .await
            .unwrap();
        assert_eq!(all.items, [info]);
        let pid = platform.qemu_pid(&sandbox).unwrap();

        sandbox.destroy().await.unwrap();
        assert!(!lives(pid), "r9: the process is gone when destroy returns");
        sandbox.destroy().await.unwrap();
        for gone in [
            sandbox.info().await.err(),
            sandbox.exec("true").await.err(),
            platform.client.get(sandbox.id()).await.err(),
        ] {
            assert_eq!(gone, Some(Error::SandboxNotFound(sandbox.id())));
        }
    })
    .await;
}

#[tokio::test]
async fn r4_labels_find_sandboxes_and_lists_come_in_pages() {
    with_platform(async |platform| {
        let mut sandboxes = Vec::new();
        for number in 0..3 {
            let create = platform
                .client
                .create()
                .memory_mb(512)
                .metadata("job", if number == 1 { "b" } else { "a" })
                .metadata("number", number.to_string());
            sandboxes.push(create.await.unwrap());
        }
        let labelled = |pairs: &[(&str, &str)]| SandboxFilter {
            metadata: pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            ..SandboxFilter::default()
        };
        let client = &platform.client;
        let ids = async |filter, page| -> (Vec<_>, _) {
            let page = client.list(filter, page).await.unwrap();
            (page.items.iter().map(|item| item.id).collect(), page.next)
        };
        let whole = PageRequest::default();
        let all: Vec<_> = sandboxes.iter().map(Sandbox::id).collect();
        assert_eq!(
            ids(labelled(&[("job", "a")]), whole).await,
            (vec![all[0], all[2]], None)
        );
        assert_eq!(
            ids(labelled(&[("job", "a"), ("number", "2")]), whole)
                .await
                .0,
            [all[2]]
        );
        assert!(ids(labelled(&[("job", "c")]), whole).await.0.is_empty());
        let stopped = SandboxFilter {
            state: Some(SandboxState::Stopped),
            ..SandboxFilter::default()
        };
        assert!(ids(stopped, whole).await.0.is_empty());

        let two = PageRequest {
            after: None,
            limit: 2,
        };
        let (first, next) = ids(SandboxFilter::default(), two).await;
        assert_eq!((first.as_slice(), next), (&all[..2], Some(all[1])));
        let rest = PageRequest {
            after: next,
            limit: 2,
        };
        assert_eq!(
            ids(SandboxFilter::default(), rest).await,
            (vec![all[2]], None)
        );
        for sandbox in sandboxes {
            sandbox.destroy().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn r10_trap_38_one_idempotency_key_makes_one_sandbox_whatever_is_retried() {
    with_platform(async |platform| {
        let create = || platform.client.create().idempotency_key("order-7");
        let (first, second) = futures::join!(create().into_future(), create().into_future());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.id(), second.id());
        assert_eq!(create().await.unwrap().id(), first.id());
        assert_eq!(platform.leftovers.machine_pids().len(), 1, "one machine");
        let other = create().memory_mb(600).await.unwrap_err();
        assert_eq!(other, Error::IdempotencyMismatch);
        first.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r16_trap_27_clones_of_one_image_are_individuals() {
    with_platform(async |platform| {
        let look = "hostname; cat /etc/machine-id; head -c 16 /dev/urandom | xxd -p; \
                cat /proc/sys/kernel/random/uuid; date +%s";
        let mut seen: Vec<Vec<String>> = Vec::new();
        for _ in 0..2 {
            let sandbox = platform.create().await;
            let before = now_sec();
            let lines = text(sandbox.exec(look).await.unwrap());
            let after = now_sec();
            let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
            assert_eq!(lines.len(), 5, "{lines:?}");
            assert_eq!(lines[1].len(), 32, "a machine ID has 32 digits");
            let clock: u64 = lines[4].parse().unwrap();
            assert!(
                (before.saturating_sub(1)..=after + 1).contains(&clock),
                "{before} ≤ {clock} ≤ {after}"
            );
            seen.push(lines);
            sandbox.destroy().await.unwrap();
        }
        for what in 0..4 {
            let values: BTreeSet<&String> = seen.iter().map(|lines| &lines[what]).collect();
            assert_eq!(values.len(), 2, "both clones have {values:?}");
        }
    })
    .await;
}

fn now_sec() -> u64 {
    // The host's clock by the one program that tells it.
    let output = std::process::Command::new("date")
        .arg("+%s")
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn r11_a_guest_has_no_network_but_its_own_loopback() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let interfaces = text(
            sandbox
                .exec("ls /sys/class/net; cat /proc/net/route")
                .await
                .unwrap(),
        );
        let mut words = interfaces.split_whitespace();
        assert_eq!(words.next(), Some("lo"));
        assert_eq!(
            words.next(),
            Some("Iface"),
            "no interface but lo: {interfaces}"
        );
        assert!(!interfaces.contains("eth"), "no route: {interfaces}");
        for address in ["10.0.2.2", "169.254.169.254"] {
            let tried = sandbox
                .command("nc")
                .args(["-w", "2", address, "80"])
                .output()
                .await
                .unwrap();
            assert!(!tried.status.success(), "{address}: {tried:?}");
        }
        let loopback = "echo hi | nc -l -p 4000 & \
                    for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 4000 </dev/null && break; done";
        let own = sandbox
            .shell(loopback)
            .timeout(LONG)
            .output()
            .await
            .unwrap();
        assert_eq!(own.stdout, "hi\n", "{own:?}");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r8_a_sandbox_lives_while_it_is_used_and_is_destroyed_when_its_time_is_up() {
    with_platform(async |platform| {
        let timeout = Duration::from_secs(2);
        let sandbox = platform.client.create().timeout(timeout).await.unwrap();
        let first = sandbox.info().await.unwrap().expires_at.unwrap();
        // Used for longer than its timeout, and pushed by it.
        let begun = Instant::now();
        let used = sandbox.exec("sleep 3; echo still here").await.unwrap();
        assert!(begun.elapsed() > timeout);
        assert_eq!(text(used), "still here\n");
        let pinged = sandbox.ping().await.unwrap();
        assert!(
            pinged.expires_at.unwrap() > first,
            "a ping pushes the deadline"
        );

        let pinged_at = Instant::now();
        eventually("the sandbox is destroyed", || async {
            match sandbox.info().await {
                Ok(_) => None,
                Err(error) => {
                    assert_eq!(error, Error::SandboxNotFound(sandbox.id()));
                    Some(())
                }
            }
        })
        .await;
        let lived = pinged_at.elapsed();
        assert!(
            lived >= timeout - Duration::from_millis(50),
            "destroyed after {lived:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_pool_of_waiting_clones_is_filled_used_and_leaves_nothing() {
    with_pool(2, async |platform| {
        platform.client.prepare().await.unwrap();
        let host = platform.client.host().unwrap();
        let waiting = host.waiting_pids();
        assert_eq!(waiting.len(), 2);
        let sandbox = platform.create().await;
        let pid = platform.qemu_pid(&sandbox).unwrap();
        assert!(waiting.contains(&pid), "a waiting clone was taken");
        assert_eq!(text(sandbox.exec("echo $HOME").await.unwrap()), "/root\n");
        eventually("the pool is full again", || async {
            (host.waiting_pids().len() == 2).then_some(())
        })
        .await;

        // A clone that dies while it waits is replaced at the next create, and is never handed out.
        let dead = host.waiting_pids()[0];
        vm_support::kill_9(dead);
        let second = platform.create().await;
        assert_ne!(platform.qemu_pid(&second), Some(dead));
        assert_eq!(text(second.exec("echo two").await.unwrap()), "two\n");
        sandbox.destroy().await.unwrap();
        second.destroy().await.unwrap();
        // The refill that the last create began is still under way: closing waits for it.
    })
    .await;
}

#[tokio::test]
async fn twelve_commands_at_once_and_four_sandboxes_side_by_side_keep_apart() {
    with_platform(async |platform| {
        let create = || platform.client.create().into_future();
        let made = futures::try_join!(create(), create(), create(), create()).unwrap();
        let sandboxes = [made.0, made.1, made.2, made.3];
        let mut runs = Vec::new();
        for (number, sandbox) in sandboxes.iter().enumerate() {
            for turn in 0..3 {
                let line = format!("echo {number} >> /mine; echo {number}-{turn}");
                runs.push(async move { (number, turn, sandbox.exec(line).await.unwrap()) });
            }
        }
        for (number, turn, output) in futures::future::join_all(runs).await {
            assert_eq!(text(output), format!("{number}-{turn}\n"));
        }
        for (number, sandbox) in sandboxes.iter().enumerate() {
            let mine = sandbox.files().read_to_string("/mine").await.unwrap();
            assert_eq!(mine, format!("{number}\n").repeat(3), "disks are apart");
        }
        for sandbox in sandboxes {
            sandbox.destroy().await.unwrap();
        }
    })
    .await;
}
