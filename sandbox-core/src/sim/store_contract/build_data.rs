//! Logs and contexts of builds, and what is removed in time.

use std::sync::Arc;

use bytes::Bytes;

use super::{build_fixtures::*, fixtures::*};
use crate::{
    build::{BuildRecord, BuildStatus, LogCursor, LogEntry, LogStream},
    store::{Store, StoreError},
};

async fn log(store: &dyn Store, number: u128, after: u64, max_bytes: u32) -> Vec<LogEntry> {
    let after = LogCursor(after);
    let read = store.build_log(build_id(number), after, max_bytes).await;
    read.unwrap()
}

async fn append(store: &dyn Store, number: u128, entries: &[LogEntry]) {
    let appended = store.append_build_log(build_id(number), entries.to_vec());
    appended.await.unwrap();
}

/// Bytes as they came, whatever they are, in order across attempts; builds have logs of their own.
pub async fn r30_a_log_comes_back_equal_in_order_behind_any_cursor(store: Arc<dyn Store>) {
    for number in [1, 2] {
        insert_build(&*store, build(number)).await;
    }
    assert_eq!(log(&*store, 1, 0, u32::MAX).await, []);
    let mut entries = Vec::new();
    for (attempt, number) in [(1, 1), (1, 2), (1, 300), (2, 1), (u32::from(u8::MAX), 7)] {
        for stream in LogStream::ALL {
            entries.push(LogEntry {
                cursor: LogCursor::new(attempt, number * 10 + entries.len() as u64),
                step: attempt + 1,
                stream,
                data: (0..=255).cycle().skip(entries.len()).take(300).collect(),
                at: at(entries.len() as i64),
            });
        }
    }
    append(&*store, 1, &entries[5..]).await;
    append(&*store, 1, &entries[..5]).await;
    append(&*store, 1, &[]).await;
    append(&*store, 2, &[piece(1, 1)]).await;
    assert_eq!(log(&*store, 1, 0, u32::MAX).await, entries);
    for place in 0..entries.len() {
        let cursor = entries[place].cursor.0;
        let behind = log(&*store, 1, cursor, u32::MAX).await;
        assert_eq!(behind, entries[place + 1..]);
        let from = log(&*store, 1, cursor - 1, u32::MAX).await;
        assert_eq!(from, entries[place..]);
    }
    for after in [u64::MAX, i64::MAX as u64, i64::MAX as u64 + 1] {
        assert_eq!(log(&*store, 1, after, u32::MAX).await, []);
    }
    assert_eq!(log(&*store, 2, 0, u32::MAX).await, [piece(1, 1)]);
    assert_eq!(log(&*store, 3, 0, u32::MAX).await, []);
}

/// A piece is written once: what comes again, in whatever company, changes nothing.
pub async fn r30_a_piece_of_a_log_is_written_once(store: Arc<dyn Store>) {
    insert_build(&*store, build(1)).await;
    append(&*store, 1, &[piece(1, 3), piece(3, 3)]).await;
    let mut other = piece(3, 9);
    other.stream = LogStream::Note;
    append(&*store, 1, &[piece(1, 5), piece(2, 2), other, piece(4, 4)]).await;
    let expected = [piece(1, 3), piece(2, 2), piece(3, 3), piece(4, 4)];
    assert_eq!(log(&*store, 1, 0, u32::MAX).await, expected);
    // Of eight writers of the same pieces, each is told that they are there.
    let pieces: Vec<LogEntry> = (5..=20).map(|number| piece(number, 1)).collect();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, pieces) = (Arc::clone(&store), pieces.clone());
            tokio::spawn(async move { append(&*store, 1, &pieces).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        log(&*store, 1, piece(4, 0).cursor.0, u32::MAX).await,
        pieces
    );
}

/// As many as fit, and one at least; what follows is read behind the last.
pub async fn trap_35_a_part_of_a_log_has_no_more_than_was_asked_for(store: Arc<dyn Store>) {
    insert_build(&*store, build(1)).await;
    let entries: Vec<LogEntry> = [4, 6, 0, 1, 11, 0, 3]
        .into_iter()
        .zip(1..)
        .map(|(size, number)| piece(number, size))
        .collect();
    append(&*store, 1, &entries).await;
    let cases: [(u32, &[usize]); 7] = [
        (0, &[1, 2, 1, 2, 1]),
        (4, &[1, 2, 1, 2, 1]),
        (10, &[3, 1, 2, 1]),
        (11, &[4, 2, 1]),
        (14, &[4, 3]),
        (24, &[6, 1]),
        (25, &[7]),
    ];
    for (max_bytes, expected) in cases {
        let (mut after, mut read, mut parts) = (0, Vec::new(), Vec::new());
        loop {
            let part = log(&*store, 1, after, max_bytes).await;
            let Some(last) = part.last() else { break };
            after = last.cursor.0;
            parts.push(part.len());
            read.extend(part);
        }
        assert_eq!(read, entries, "in parts of {max_bytes} bytes");
        assert_eq!(parts, expected, "in parts of {max_bytes} bytes");
    }
}

/// Thousands of pieces, more than any store looks at in one go.
pub async fn trap_35_a_long_log_is_read_in_parts_with_no_byte_lost_or_doubled(
    store: Arc<dyn Store>,
) {
    insert_build(&*store, build(1)).await;
    let entries: Vec<LogEntry> = (1..=1200).map(|number| piece(number, 10)).collect();
    for pieces in entries.chunks(400) {
        append(&*store, 1, pieces).await;
    }
    assert_eq!(log(&*store, 1, 0, u32::MAX).await, entries);
    for (max_bytes, expected) in [(5009, 500), (5010, 501), (10_009, 1000), (11_999, 1199)] {
        let part = log(&*store, 1, 0, max_bytes).await;
        assert_eq!(part, entries[..expected], "{max_bytes} bytes");
        let rest = log(&*store, 1, entries[expected - 1].cursor.0, u32::MAX).await;
        assert_eq!(rest, entries[expected..]);
    }
}

/// Nothing is logged of a build that is not there.
pub async fn a_log_of_a_build_that_is_gone_conflicts(store: Arc<dyn Store>) {
    let appended = store.append_build_log(build_id(1), vec![piece(1, 1)]).await;
    let conflict = matches!(appended, Err(StoreError::Conflict));
    assert!(conflict, "{appended:?}");
    insert_build(&*store, build(1)).await;
    assert_eq!(log(&*store, 1, 0, u32::MAX).await, []);
}

/// A context comes back byte for byte, and keeping it again is keeping it now.
pub async fn r31_a_context_comes_back_equal_and_can_be_kept_again(store: Arc<dyn Store>) {
    assert_eq!(store.context("a").await.unwrap(), None);
    assert!(!store.has_context("a").await.unwrap());
    let data: Vec<u8> = (0..=255).cycle().take(1_000_003).collect();
    for (name, data) in [("a", Bytes::from(data)), ("ü'", Bytes::new())] {
        store.put_context(name, data.clone(), at(0)).await.unwrap();
        assert!(store.has_context(name).await.unwrap());
        assert_eq!(store.context(name).await.unwrap(), Some(data.clone()));
        store.put_context(name, data.clone(), at(10)).await.unwrap();
        assert_eq!(store.context(name).await.unwrap(), Some(data));
    }
    assert!(!store.has_context("A").await.unwrap());
    assert_eq!(store.remove_contexts_before(at(10)).await.unwrap(), 0);
    assert_eq!(store.remove_contexts_before(at(11)).await.unwrap(), 2);
    assert!(!store.has_context("a").await.unwrap());
    assert_eq!(store.context("ü'").await.unwrap(), None);
}

/// Old contexts go, but for those that a build waits for or works with.
pub async fn r31_a_context_stays_as_long_as_a_build_needs_it(store: Arc<dyn Store>) {
    for (number, status) in (1..).zip(BuildStatus::ALL) {
        let name = status.as_str();
        let data = Bytes::from_static(b"data");
        store.put_context(name, data, at(0)).await.unwrap();
        let record = BuildRecord {
            context: Some(name.to_owned()),
            status,
            ..build(number)
        };
        insert_build(&*store, record).await;
    }
    insert_build(&*store, build(100)).await;
    for (name, second) in [("old", 0), ("young", 5)] {
        let data = Bytes::from_static(b"data");
        store.put_context(name, data, at(second)).await.unwrap();
    }
    // Of several builds with one context, one is enough to keep it.
    let shared = BuildRecord {
        context: Some("pending".to_owned()),
        status: BuildStatus::Failed,
        ..build(101)
    };
    insert_build(&*store, shared).await;
    assert_eq!(store.remove_contexts_before(at(5)).await.unwrap(), 4);
    for name in ["pending", "running", "young"] {
        assert!(store.has_context(name).await.unwrap(), "{name}");
    }
    for name in ["success", "failed", "cancelled", "old"] {
        assert!(!store.has_context(name).await.unwrap(), "{name}");
    }
    assert_eq!(store.remove_contexts_before(at(5)).await.unwrap(), 0);
}

/// Builds that ended go with their steps and logs, and free their keys; audit entries stay.
pub async fn r28_old_builds_go_with_all_that_is_theirs(store: Arc<dyn Store>) {
    for (number, finished) in [(1, Some(1)), (2, Some(2)), (3, None), (4, Some(1))] {
        let record = BuildRecord {
            finished_at: finished.map(at),
            idempotency_key: Some(format!("k{number}")),
            ..build(number)
        };
        let write = with_all(record, audit(number, "bld", 0), Vec::new());
        store.insert_build(write).await.unwrap();
        append(&*store, number, &[piece(1, 1), piece(2, 1)]).await;
    }
    assert_eq!(store.remove_builds_finished_before(at(1)).await.unwrap(), 0);
    assert_eq!(store.remove_builds_finished_before(at(2)).await.unwrap(), 2);
    for (number, there) in [(1, false), (2, true), (3, true), (4, false)] {
        let read = store.build(build_id(number)).await.unwrap();
        assert_eq!(read.is_some(), there, "build {number}");
        let steps = store.build_steps(build_id(number), 1).await.unwrap();
        assert_eq!(steps.len(), usize::from(there), "build {number}");
        let pieces = log(&*store, number, 0, u32::MAX).await;
        assert_eq!(pieces.len(), 2 * usize::from(there), "build {number}");
        let late = store
            .append_build_log(build_id(number), vec![piece(3, 1)])
            .await;
        assert_eq!(late.is_ok(), there, "build {number}");
    }
    assert_eq!(store.audit_of("bld", 10).await.unwrap().len(), 4);
    let mut again = build(5);
    again.idempotency_key = Some("k1".to_owned());
    insert_build(&*store, again).await;
}
