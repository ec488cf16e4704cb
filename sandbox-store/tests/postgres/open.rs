//! Opening: several at once, and clear words about what stands in the way.

use std::{sync::Arc, time::Duration};

use sandbox_store::{ConnectError, PostgresOpenError, PostgresSettings, PostgresStore};
use tokio::net::UnixListener;

use crate::{
    count,
    kit::{self, record, write},
    open,
    server::{Server, sql, url},
};
use sandbox_core::store::Store;

const TABLES: &str = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables \
                      WHERE schemaname = 'public'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_open_one_empty_database_at_once_make_its_schema_once() {
    let server = Server::start();
    let url: Arc<str> = server.database("together").await.into();
    let openings: Vec<_> = (0..4)
        .map(|_| {
            let url = Arc::clone(&url);
            tokio::spawn(async move { PostgresStore::open(&url).await })
        })
        .collect();
    let mut stores = Vec::new();
    for opening in openings {
        stores.push(opening.await.unwrap().unwrap());
    }
    stores[0].insert_sandbox(write(record(1), 1)).await.unwrap();
    for store in &stores {
        assert_eq!(count(store).await, 1);
    }
    let versions = sql(&url, "SELECT version FROM __diesel_schema_migrations").await;
    assert_eq!(versions.len(), 1);
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let server = Server::start();
    let url = server.database("kept").await;
    let first = record(1);
    let store = open(&url).await;
    store.insert_sandbox(write(first.clone(), 7)).await.unwrap();
    drop(store);
    let store = open(&url).await;
    assert_eq!(store.sandbox(first.id).await.unwrap(), Some(first.clone()));
    let operation = store.last_operation_on(first.id).await.unwrap();
    assert_eq!(operation, Some(kit::operation(7, 1)));
    let entries = store.audit_of(&first.id.to_string(), 10).await.unwrap();
    assert_eq!(entries, vec![kit::audit(7, &first.id.to_string())]);
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let server = Server::start();
    let tables = server.database("tables").await;
    sql(&tables, "CREATE TABLE operations (surgeon text)").await;
    let templates = server.database("templates").await;
    sql(&templates, "CREATE TABLE templates (page text)").await;
    let migrations = server.database("migrations").await;
    sql(
        &migrations,
        "CREATE TABLE __diesel_schema_migrations (version text PRIMARY KEY, run_on timestamp); \
         INSERT INTO __diesel_schema_migrations VALUES ('20200101000000')",
    )
    .await;
    for (url, left) in [
        (tables, "operations"),
        (templates, "templates"),
        (migrations, "__diesel_schema_migrations"),
    ] {
        let error = PostgresStore::open(&url).await.unwrap_err();
        assert!(matches!(error, PostgresOpenError::Foreign), "{error:?}");
        assert_eq!(sql(&url, TABLES).await, [left]);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let server = Server::start();
    let url = server.database("newer").await;
    drop(open(&url).await);
    sql(
        &url,
        "INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')",
    )
    .await;
    let error = PostgresStore::open(&url).await.unwrap_err();
    assert!(
        matches!(&error, PostgresOpenError::Newer { version } if version == "29991231000000"),
        "{error:?}"
    );
}

#[tokio::test]
async fn r2_an_early_programs_schema_is_refused_and_left_alone() {
    let server = Server::start();
    let url = server.database("early").await;
    drop(open(&url).await);
    sql(
        &url,
        "DROP TABLE templates; \
         UPDATE __diesel_schema_migrations SET version = '20251123000000'",
    )
    .await;
    let before = sql(&url, TABLES).await;
    let error = PostgresStore::open(&url).await.unwrap_err();
    assert!(
        matches!(&error, PostgresOpenError::Outdated { version } if version == "20251123000000"),
        "{error:?}"
    );
    assert!(error.to_string().contains("name another one"), "{error}");
    assert_eq!(sql(&url, TABLES).await, before);
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_is_told_and_nothing_is_left_behind() {
    let server = Server::start();
    let url = server.database("rights").await;
    sql(&url, "CREATE ROLE guest LOGIN").await;
    let guest = url.replace("user=sandbox", "user=guest");
    let error = PostgresStore::open(&guest).await.unwrap_err();
    assert!(matches!(error, PostgresOpenError::Migrate(_)), "{error:?}");
    assert!(sql(&url, TABLES).await.is_empty());
}

#[tokio::test]
async fn a_missing_server_a_missing_database_and_a_silent_server_are_clear_errors() {
    let server = Server::start();
    let error = PostgresStore::open(&server.url("nowhere"))
        .await
        .unwrap_err();
    let refused = matches!(
        error,
        PostgresOpenError::Connect(ConnectError::Refused { .. })
    );
    assert!(refused, "{error:?}");

    let folder = tempfile::tempdir().unwrap();
    let error = PostgresStore::open(&url(folder.path(), "x"))
        .await
        .unwrap_err();
    let unreachable = matches!(
        error,
        PostgresOpenError::Connect(ConnectError::Unreachable { .. })
    );
    assert!(unreachable, "{error:?}");

    let _silent = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let settings = PostgresSettings {
        connect_timeout: Duration::from_millis(200),
        ..PostgresSettings::default()
    };
    let error = PostgresStore::open_with(&url(folder.path(), "x"), settings)
        .await
        .unwrap_err();
    let timed_out = matches!(
        error,
        PostgresOpenError::Connect(ConnectError::TimedOut { .. })
    );
    assert!(timed_out, "{error:?}");
}

#[tokio::test]
async fn of_several_servers_the_first_that_answers_is_used() {
    let server = Server::start();
    server.database("second").await;
    let nobody = tempfile::tempdir().unwrap();
    let url = format!(
        "host={},{} dbname=second user=sandbox",
        nobody.path().display(),
        server.folder().display()
    );
    assert_eq!(count(&open(&url).await).await, 0);
}

#[tokio::test]
async fn a_url_that_asks_for_tls_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("{}&sslmode={mode}", url(folder.path(), "x"));
        let error = PostgresStore::open(&url).await.unwrap_err();
        let tls = matches!(error, PostgresOpenError::TlsUnsupported);
        assert!(tls, "{error:?}");
    }
    let called = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
    assert!(called.is_err(), "somebody connected");
}
