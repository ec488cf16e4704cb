//! Native types, and what the server refuses.

use sandbox_core::{
    sandbox::{PageRequest, SandboxFilter, SandboxState},
    store::{SandboxWrite, Store, StoreError, TemplateChange},
};

use crate::{
    count,
    kit::{next, record, sandbox_id, template, template_write, write},
    open,
    server::{Server, sql},
};

#[tokio::test]
async fn r2_columns_have_native_types_and_only_actors_and_resources_are_text() {
    let server = Server::start();
    let url = server.database("types").await;
    drop(open(&url).await);
    let types = sql(
        &url,
        "SELECT table_name || '.' || column_name || ' ' || data_type \
         FROM information_schema.columns WHERE table_schema = 'public' \
         AND (column_name LIKE '%id' OR column_name LIKE '%\\_at' OR column_name LIKE '%until' \
              OR column_name IN ('at', 'metadata', 'env', 'error', 'resource', \
              'recipe', 'healthcheck', 'failure')) \
         AND table_name NOT LIKE '\\_\\_%' ORDER BY 1",
    )
    .await;
    for found in &types {
        let (column, kind) = found.split_once(' ').unwrap();
        let expected = match column.split_once('.').unwrap() {
            ("audit_logs", "actor_id" | "resource") => "text",
            ("template_builds", "actor_id") => "text",
            (_, "metadata" | "env" | "error" | "recipe" | "healthcheck" | "failure") => "jsonb",
            (_, name) if name.ends_with("id") => "uuid",
            _ => "timestamp with time zone",
        };
        assert_eq!(kind, expected, "{column}");
    }
    assert_eq!(types.len(), 53, "{types:?}");
}

#[tokio::test]
async fn labels_with_quotes_and_escapes_are_found() {
    let server = Server::start();
    let store = open(&server.database("labels").await).await;
    let odd = [
        "a\"b",
        "a\\b",
        "$.x",
        "[0]",
        "%",
        "line\nbreak",
        "ü",
        "",
        "1",
    ];
    for (number, text) in (1_u128..).zip(odd) {
        let mut record = record(number);
        record.metadata.insert(text.to_owned(), text.to_owned());
        store.insert_sandbox(write(record, number)).await.unwrap();
    }
    for (number, text) in (1_u128..).zip(odd) {
        let mut filter = SandboxFilter::default();
        filter.metadata.insert(text.to_owned(), text.to_owned());
        let page = store.list_sandboxes(&filter, PageRequest::default()).await;
        let found: Vec<_> = page.unwrap().items.iter().map(|found| found.id).collect();
        assert_eq!(found, [sandbox_id(number)], "label {text:?}");
    }
}

/// Makes each write of a sandbox fail with this SQLSTATE, in words of another meaning.
async fn refuse_writes(url: &str, state: &str, when: &str) {
    sql(
        url,
        &format!(
            "CREATE SEQUENCE tries; \
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF {when} THEN RAISE EXCEPTION 'unique connection closed' \
               USING ERRCODE = '{state}'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON sandboxes \
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        ),
    )
    .await;
}

#[tokio::test]
async fn r22_a_full_disk_of_the_server_is_told_by_its_sqlstate_and_removing_goes_on() {
    let server = Server::start();
    let url = server.database("disk").await;
    let store = open(&url).await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    refuse_writes(&url, "53100", "true").await;
    let full = store.insert_sandbox(write(record(2), 2)).await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    let update = write(next(&record(1), SandboxState::Running), 3);
    let full = store.update_sandbox(update).await;
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    let entry = crate::kit::audit(4, "sb");
    store
        .remove_sandbox(sandbox_id(1), 1, None, entry)
        .await
        .unwrap();
    assert_eq!(count(&store).await, 0);
}

#[tokio::test]
async fn trap_34_a_refusal_that_only_sounds_like_a_known_one_is_none() {
    let server = Server::start();
    let url = server.database("words").await;
    let store = open(&url).await;
    refuse_writes(&url, "22023", "true").await;
    let refused = store.insert_sandbox(write(record(1), 1)).await;
    assert!(
        matches!(&refused, Err(StoreError::Internal(why)) if why.contains("22023")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_write_that_the_server_rolled_back_for_others_sake_is_tried_once_more() {
    let server = Server::start();
    let url = server.database("again").await;
    let store = open(&url).await;
    // A sequence goes on also when its transaction is rolled back.
    refuse_writes(&url, "40001", "nextval('tries') IN (1, 3, 4)").await;
    store.insert_sandbox(write(record(1), 1)).await.unwrap();
    let refused = store.insert_sandbox(write(record(2), 2)).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn a_value_that_no_column_can_hold_is_refused_and_changes_nothing() {
    let server = Server::start();
    let store = open(&server.database("values").await).await;
    let mut huge = record(1);
    huge.timeout_sec = Some(u64::MAX);
    let refused = store.insert_sandbox(write(huge, 1)).await;
    assert!(
        matches!(&refused, Err(StoreError::Internal(why)) if why.contains("timeout_sec")),
        "{refused:?}"
    );
    let mut nul = record(1);
    nul.reason = "a\0b".to_owned();
    let refused = store.insert_sandbox(write(nul, 1)).await;
    assert!(
        matches!(refused, Err(StoreError::Internal(_))),
        "{refused:?}"
    );
    let with = |template| SandboxWrite {
        template: Some(template_write(TemplateChange::Insert(template))),
        ..write(record(1), 1)
    };
    let mut huge = template(1);
    huge.memory_bytes = u64::MAX;
    let refused = store.insert_sandbox(with(huge)).await;
    assert!(
        matches!(&refused, Err(StoreError::Internal(why)) if why.contains("memory_bytes")),
        "{refused:?}"
    );
    assert_eq!(count(&store).await, 0);
    store.insert_sandbox(with(template(1))).await.unwrap();
    let made = store.template(template(1).id).await.unwrap();
    assert_eq!(made, Some(template(1)));
}
