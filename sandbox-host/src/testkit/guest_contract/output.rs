//! Reading output by cursor (R5).

use std::time::Instant;

use super::*;
use sandbox_core::process::{ExitStatus, Stdin, WhenFull};

/// Line by line while it runs, each once.
pub async fn r5_a_reader_follows_a_process_in_the_background(guest: &dyn Guest, _: &str) {
    let line = "for i in $(seq 1 300); do echo line $i; echo err $i >&2; done; exit 9";
    let pid = background(guest, ProcessSpec::shell(line)).await;
    let mut collected = Collected::default();
    while collected.exit.is_none() {
        let request = OutputRequest {
            offset: collected.offset,
            max_bytes: 97,
            wait_ms: 10_000,
        };
        collected.add(guest.read_output(pid, request).await.unwrap());
    }
    let lines = |word: &str| {
        (1..=300)
            .map(|i| format!("{word} {i}\n"))
            .collect::<String>()
    };
    assert_eq!(collected.stdout, lines("line").into_bytes());
    assert_eq!(collected.stderr, lines("err").into_bytes());
    assert_eq!(collected.exit.unwrap().status, ExitStatus::Code(9));
}

/// The newest bytes are kept, and the count of the others is exact.
pub async fn r5_a_bounded_log_drops_its_oldest_and_says_so(guest: &dyn Guest, _: &str) {
    let mut spec = ProcessSpec::shell("head -c 1000000 /dev/zero | tr '\\0' x; printf end");
    spec.retain_bytes = 10_000;
    let pid = background(guest, spec).await;
    let ended = async {
        loop {
            let listed = guest.processes().await.unwrap();
            let info = listed.into_iter().find(|info| info.pid == pid).unwrap();
            if info.exit.is_some() {
                return info;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let info = tokio::time::timeout(LONG, ended).await.unwrap();
    assert_eq!((info.output_start, info.output_end), (990_003, 1_000_003));
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |_| false).await;
    assert_eq!(collected.dropped_bytes, 990_003);
    assert_eq!(collected.stdout.len(), 10_000);
    assert!(collected.stdout.ends_with(b"xend"));
    let beyond = read(guest, pid, 1_000_004).await;
    assert!(matches!(refused(beyond), GuestError::Invalid(_)));
}

/// The process stands still until it is read, and then nothing is missing.
pub async fn r5_a_waiting_log_loses_nothing_and_holds_the_process_up(
    guest: &dyn Guest,
    folder: &str,
) {
    let mark = format!("{folder}/done");
    let line = format!("head -c 2000000 /dev/zero | tr '\\0' y; : > {mark}");
    let mut spec = ProcessSpec::shell(line);
    spec.retain_bytes = 50_000;
    spec.when_full = WhenFull::Wait;
    let started = guest.start_process(spec, LONG).await.unwrap();
    assert_eq!(
        started.output.exit, None,
        "the wait ends when it stands still"
    );
    assert_eq!(started.output.next_offset, 50_000);
    let missing = guest.stat(&mark).await;
    assert!(matches!(refused(missing), GuestError::NotFound { .. }));
    let mut collected = Collected::default();
    collected.add(started.output);
    read_until(guest, started.pid, &mut collected, |_| false).await;
    assert_eq!(collected.dropped_bytes, 0);
    assert_eq!(collected.stdout.len(), 2_000_000);
    assert!(collected.stdout.iter().all(|byte| *byte == b'y'));
    guest.stat(&mark).await.unwrap();
}

/// Then its oldest output goes instead; a reader that comes back finds it waiting again.
pub async fn r36_a_log_waits_only_while_a_reader_comes_by(guest: &dyn Guest, folder: &str) {
    let mark = |name: &str| format!("{folder}/{name}");
    let line = format!(
        "head -c 200000 /dev/zero; : > {}; read go; head -c 200000 /dev/zero; : > {}",
        mark("first"),
        mark("second")
    );
    let mut spec = ProcessSpec::shell(line);
    spec.stdin = Stdin::Piped;
    spec.retain_bytes = 50_000;
    spec.when_full = WhenFull::Wait;
    spec.reader_patience_ms = Some(1500);
    let pid = background(guest, spec).await;
    let exists = async |name: &str| match guest.stat(&mark(name)).await {
        Ok(_) => true,
        missing => {
            assert!(matches!(refused(missing), GuestError::NotFound { .. }));
            false
        }
    };
    // Nobody reads.
    let unread = async {
        while !exists("first").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, unread).await.unwrap();
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |so_far| {
        so_far.offset == 200_000
    })
    .await;
    assert_eq!(collected.dropped_bytes, 150_000);

    let go = Bytes::from_static(b"go\n");
    guest.write_stdin(pid, go, false).await.unwrap();
    // Someone comes by, and takes nothing.
    let come_by = OutputRequest {
        offset: 200_000,
        max_bytes: 1,
        wait_ms: 10_000,
    };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let seen = guest.read_output(pid, come_by).await.unwrap();
        assert_eq!((seen.dropped_bytes, seen.next_offset), (0, 200_001));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!exists("second").await);
    read_until(guest, pid, &mut collected, |_| false).await;
    assert_eq!(
        (collected.offset, collected.dropped_bytes),
        (400_000, 150_000)
    );
    assert!(exists("second").await);
}

/// From then on its oldest output goes instead.
pub async fn r5_a_detached_log_never_holds_up(guest: &dyn Guest, _: &str) {
    let mut spec = ProcessSpec::shell("head -c 1000000 /dev/zero; echo over");
    spec.retain_bytes = 4096;
    spec.when_full = WhenFull::Wait;
    let pid = background(guest, spec).await;
    guest.detach_output(pid).await.unwrap();
    let ended = async {
        while guest
            .processes()
            .await
            .unwrap()
            .iter()
            .any(|info| info.pid == pid && info.exit.is_none())
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, ended).await.unwrap();
    let mut collected = Collected::default();
    read_until(guest, pid, &mut collected, |_| false).await;
    assert_eq!(collected.offset, 1_000_005);
    assert!(collected.stdout.ends_with(b"over\n"));
}

/// Empty, and not before.
pub async fn r5_a_long_poll_ends_when_its_time_is_up(guest: &dyn Guest, _: &str) {
    let pid = background(guest, ProcessSpec::shell("exec sleep 1000")).await;
    let asked = Instant::now();
    let request = OutputRequest {
        offset: 0,
        max_bytes: 100,
        wait_ms: 200,
    };
    let output = guest.read_output(pid, request).await.unwrap();
    assert_eq!(output, Output::default());
    assert!(asked.elapsed() >= Duration::from_millis(190));
    guest.signal(pid, 9, false).await.unwrap();
}

/// None takes another's output.
pub async fn r5_many_processes_at_once(guest: &dyn Guest, _: &str) {
    let runs = (0..40).map(|number| async move {
        let line = format!(
            "echo {number}; sleep 0.0{}; echo {number} >&2; exit {number}",
            number % 10
        );
        let output = exec(guest, ProcessSpec::shell(line)).await;
        assert_eq!(output.stdout, format!("{number}\n"));
        assert_eq!(output.stderr, format!("{number}\n"));
        assert_eq!(output.status, ExitStatus::Code(number));
    });
    futures::future::join_all(runs).await;
}
