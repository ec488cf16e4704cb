//! Template builds in PostgreSQL, beyond the contract.

use bytes::Bytes;
use sandbox_core::{
    build::CONTEXT_MAX_BYTES,
    store::{BuildStore, StoreError},
};

use crate::{
    build_kit::{build, build_write, noise, piece},
    kit::at,
    open,
    server::{Server, sql},
};

#[tokio::test]
async fn r31_the_largest_context_comes_back_equal() {
    let server = Server::start();
    let store = open(&server.database("contexts").await).await;
    let data = Bytes::from(noise(CONTEXT_MAX_BYTES));
    store.put_context("c", data.clone(), at(0)).await.unwrap();
    let read = store.context("c").await.unwrap().unwrap();
    assert!(read == data, "{} bytes are others", read.len());
    store.put_context("c", data, at(1)).await.unwrap();
    assert_eq!(store.remove_contexts_before(at(1)).await.unwrap(), 0);
    assert_eq!(store.remove_contexts_before(at(2)).await.unwrap(), 1);
}

#[tokio::test]
async fn r31_nothing_of_a_context_or_a_log_is_in_an_error() {
    let server = Server::start();
    let url = server.database("secrets").await;
    let store = open(&url).await;
    store.insert_build(build_write(build(1))).await.unwrap();
    sql(
        &url,
        "ALTER TABLE template_build_contexts ADD CHECK (octet_length(data) < 5); \
         ALTER TABLE template_build_log ADD CHECK (octet_length(data) < 5)",
    )
    .await;
    let mut secret = piece(1, 0);
    secret.data = b"secret".to_vec();
    let context = Bytes::from_static(b"secret");
    for refused in [
        store.put_context("c", context, at(0)).await,
        store.append_build_log(build(1).id, vec![secret]).await,
    ] {
        let Err(StoreError::Internal(why)) = &refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("23514"), "{why}");
        for text in ["secret", "736563726574", "[115, 101"] {
            assert!(!why.contains(text), "{why}");
        }
    }
}

#[tokio::test]
async fn r28_r30_lists_and_logs_of_builds_have_an_index_to_be_read_by() {
    let server = Server::start();
    let url = server.database("plans").await;
    drop(open(&url).await);
    for (query, index) in [
        (
            "SELECT * FROM template_builds WHERE status = 'pending' ORDER BY id LIMIT 2",
            "template_builds_status",
        ),
        (
            "SELECT * FROM template_builds WHERE name = 'n' ORDER BY id DESC LIMIT 2",
            "template_builds_name",
        ),
        (
            "SELECT * FROM templates WHERE layer = '\\x00' ORDER BY id LIMIT 2",
            "templates_layer",
        ),
        (
            "SELECT * FROM template_build_log WHERE cursor > 7 \
             AND build_id = '00000000-0000-0000-0000-000000000001' \
             ORDER BY cursor LIMIT 2",
            "template_build_log_pkey",
        ),
    ] {
        let plan = sql(
            &url,
            &format!(
                "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; \
                 EXPLAIN {query}"
            ),
        )
        .await
        .join("\n");
        assert!(plan.contains(index) && !plan.contains("Sort"), "{plan}");
    }
}
