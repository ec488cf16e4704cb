//! Template builds in SQLite, beyond the contract.

use bytes::Bytes;
use sandbox_core::{
    build::CONTEXT_MAX_BYTES,
    store::{BuildStore, StoreError},
};

use crate::{
    build_kit::{build, build_write, noise, piece},
    kit::at,
    open, raw,
};

#[tokio::test]
async fn r31_the_largest_context_comes_back_equal_and_leaves_no_large_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    let data = Bytes::from(noise(CONTEXT_MAX_BYTES));
    store.put_context("c", data.clone(), at(0)).await.unwrap();
    assert!(store.has_context("c").await.unwrap());
    let read = store.context("c").await.unwrap().unwrap();
    assert!(read == data, "{} bytes are others", read.len());
    // Keeping it again writes its time alone.
    let log_len = || path.with_extension("db-wal").metadata().unwrap().len();
    for second in 1..=3 {
        store
            .put_context("c", data.clone(), at(second))
            .await
            .unwrap();
    }
    assert!(log_len() <= 16 << 20, "the log has {} bytes", log_len());
    assert_eq!(store.remove_contexts_before(at(4)).await.unwrap(), 1);
    assert_eq!(store.context("c").await.unwrap(), None);
}

#[tokio::test]
async fn trap_35_what_is_behind_the_part_that_was_asked_for_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = open(&path).await;
    let id = build(1).id;
    store.insert_build(build_write(build(1))).await.unwrap();
    let pieces = vec![piece(1, 10), piece(2, 10), piece(3, 10)];
    let after = piece(0, 0).cursor;
    store.append_build_log(id, pieces.clone()).await.unwrap();
    // Whoever reads the last piece trips over it.
    raw(
        &path,
        "UPDATE template_build_log SET stream = 'molten' \
         WHERE cursor = (SELECT max(cursor) FROM template_build_log)",
    );
    let part = store.build_log(id, after, 29).await.unwrap();
    assert_eq!(part, pieces[..2]);
    let refused = store.build_log(id, after, 30).await;
    assert!(
        matches!(&refused, Err(StoreError::Internal(why)) if why.contains("`stream` holds `molten`")),
        "{refused:?}"
    );
}
