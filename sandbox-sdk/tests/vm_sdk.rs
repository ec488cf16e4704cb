//! The SDK against real VMs: what must work.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use sandbox_core::process::ExitStatus;
use sandbox_sdk::{
    Error, GuestError, PageRequest, ProcessEvent, PtySize, Sandbox, SandboxFilter, SandboxState,
};
use vm_support::{LONG, eventually, lives, text, with_platform, with_pool};

const MIB: usize = 1024 * 1024;

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
async fn r5_commands_take_arguments_stdin_environment_directory_and_user() {
    with_platform(async |platform| {
    let create = platform.client.create().env("COLOUR", "red").env("SHAPE", "round");
    let sandbox = create.await.unwrap();

    let both = sandbox.exec("echo out; echo err >&2; exit 4").await.unwrap();
    assert_eq!(both.status, ExitStatus::Code(4));
    assert_eq!((&both.stdout[..], &both.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let killed = sandbox.exec("kill -TERM $$").await.unwrap();
    assert_eq!(killed.status, ExitStatus::Signal(15));

    let command = sandbox.command("printf").args(["%s|", "a b", "$HOME", ""]);
    assert_eq!(text(command.output().await.unwrap()), "a b|$HOME||");
    let counted = sandbox.command("wc").arg("-c").stdin(vec![b'x'; 3 * MIB]);
    assert_eq!(text(counted.output().await.unwrap()), format!("{}\n", 3 * MIB));
    let env = sandbox.shell("echo $COLOUR $SHAPE").env("COLOUR", "blue");
    assert_eq!(text(env.output().await.unwrap()), "blue round\n");
    let who = sandbox.shell("id -un; pwd; echo $HOME").user("user").cwd("/srv");
    assert_eq!(text(who.output().await.unwrap()), "user\n/srv\n/home/user\n");

    let missing = sandbox.command("/no/such").output().await.unwrap_err();
    assert!(
        matches!(&missing, Error::Guest(GuestError::Spawn { command, .. }) if command == "/no/such"),
        "{missing:?}"
    );
    let nobody = sandbox.shell("true").user("ghost").output().await.unwrap_err();
    assert_eq!(
        nobody,
        Error::Guest(GuestError::NoSuchUser { user: "ghost".to_owned() })
    );
    sandbox.destroy().await.unwrap();
    })
    .await;
}

/// Gathers a process's stdout until `done` says so; returns it with the offset behind it.
async fn gather(
    events: impl futures::Stream<Item = sandbox_sdk::Result<ProcessEvent>>,
    done: impl Fn(&[u8]) -> bool,
) -> (Vec<u8>, Option<ExitStatus>) {
    let mut seen = Vec::new();
    let mut events = std::pin::pin!(events);
    let all = async {
        while !done(&seen) {
            match events.try_next().await.unwrap() {
                Some(ProcessEvent::Stdout(bytes)) => seen.extend_from_slice(&bytes),
                Some(ProcessEvent::Exit(exit)) => return Some(exit.status),
                Some(other) => panic!("{other:?}"),
                None => panic!("a stream ends with its exit"),
            }
        }
        None
    };
    let exit = tokio::time::timeout(LONG, all).await.unwrap();
    (seen, exit)
}

#[tokio::test]
async fn r5_a_reader_that_comes_back_with_its_offset_loses_and_doubles_no_byte() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let line = "lines() { for i in $(seq $1 $2); do echo line $i; done; }; \
                    lines 0 199; read go; lines 200 399; read words; echo $words";
        let process = sandbox.shell(line).piped_stdin().spawn().await.unwrap();
        let (first, _) = gather(process.events(), |seen| seen.len() > 100).await;

        // Another handle, as after a restart of the reader.
        let again = platform.client.get(sandbox.id()).await.unwrap();
        let again = again.process(process.pid());
        again.write_stdin("go\n").await.unwrap();
        let offset = first.len() as u64;
        let all_lines = |seen: &[u8]| seen.ends_with(b"line 399\n");
        let (second, _) = gather(again.events_from(offset), all_lines).await;
        again.write_stdin("the end\n").await.unwrap();
        let offset = (first.len() + second.len()) as u64;
        let (third, exit) = gather(again.events_from(offset), |_| false).await;
        let expected: String = (0..400).map(|i| format!("line {i}\n")).collect();
        let whole = [first, second, third].concat();
        assert_eq!(String::from_utf8(whole).unwrap(), expected + "the end\n");
        assert_eq!(exit, Some(ExitStatus::Code(0)));

        let listed = sandbox.processes().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert!(listed[0].pid == process.pid() && listed[0].exit.is_some());
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r5_a_background_process_is_fed_signalled_and_waited_for() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let cat = sandbox.command("cat").piped_stdin().spawn().await.unwrap();
        cat.write_stdin("one ").await.unwrap();
        cat.write_stdin(vec![b'2'; 2 * MIB]).await.unwrap();
        cat.close_stdin().await.unwrap();
        let (echoed, exit) = gather(cat.events(), |_| false).await;
        assert_eq!(echoed.len(), 4 + 2 * MIB);
        assert!(echoed.starts_with(b"one 22"));
        assert_eq!(exit, Some(ExitStatus::Code(0)));

        let sleeper = sandbox.shell("sleep 1000 & wait").spawn().await.unwrap();
        assert!(
            sandbox
                .processes()
                .await
                .unwrap()
                .iter()
                .any(|listed| { listed.pid == sleeper.pid() && listed.exit.is_none() })
        );
        sleeper.kill().await.unwrap();
        assert_eq!(sleeper.wait().await.unwrap().status, ExitStatus::Signal(9));
        let left = sandbox.exec("pgrep sleep | wc -l").await.unwrap();
        assert_eq!(text(left), "0\n", "its children are killed with it");
        sandbox.destroy().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn r5_a_terminal_has_a_size_that_can_be_changed() {
    with_platform(async |platform| {
        let sandbox = platform.create().await;
        let size = PtySize { rows: 24, cols: 80 };
        let shell = sandbox.command("sh").pty(size).spawn().await.unwrap();
        shell
            .write_stdin("stty -echo; tty; stty size; echo 'first-'done\n")
            .await
            .unwrap();
        let (seen, _) = gather(shell.events(), |seen| contains(seen, "first-done")).await;
        assert!(
            contains(&seen, "/dev/pts/") && contains(&seen, "24 80"),
            "{seen:?}"
        );
        shell
            .resize(PtySize {
                rows: 50,
                cols: 132,
            })
            .await
            .unwrap();
        shell.write_stdin("stty size; exit 3\n").await.unwrap();
        let (seen, exit) = gather(shell.events_from(seen.len() as u64), |_| false).await;
        assert!(contains(&seen, "50 132"), "{seen:?}");
        assert_eq!(exit, Some(ExitStatus::Code(3)));
        sandbox.destroy().await.unwrap();
    })
    .await;
}

fn contains(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
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
