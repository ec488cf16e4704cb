//! The tables as SQLite has them: UUIDs as 16-byte blobs, times as microseconds, JSON as text.

use diesel::{
    dsl::{AsExprOf, sql},
    expression::{SqlLiteral, UncheckedBind},
    sql_types::{Bool, Text},
};

diesel::table! {
    sandboxes (id) {
        id -> Binary,
        team_id -> Binary,
        state -> Text,
        reason -> Text,
        op_id -> Nullable<Binary>,
        op_kind -> Nullable<Text>,
        op_started_at -> Nullable<BigInt>,
        op_lease_until -> Nullable<BigInt>,
        version -> BigInt,
        generation -> BigInt,
        template -> Text,
        template_id -> Binary,
        vcpus -> Integer,
        memory_mb -> Integer,
        disk_size_mb -> Integer,
        timeout_sec -> Nullable<BigInt>,
        on_timeout -> Text,
        metadata -> Text,
        env -> Text,
        host_id -> Nullable<Binary>,
        idempotency_key -> Nullable<Text>,
        created_at -> BigInt,
        started_at -> Nullable<BigInt>,
        expires_at -> Nullable<BigInt>,
        updated_at -> BigInt,
    }
}

diesel::table! {
    templates (id) {
        id -> Binary,
        team_id -> Binary,
        name -> Text,
        kind -> Text,
        state -> Text,
        op_id -> Nullable<Binary>,
        op_kind -> Nullable<Text>,
        op_started_at -> Nullable<BigInt>,
        op_lease_until -> Nullable<BigInt>,
        version -> BigInt,
        vcpus -> Integer,
        memory_mb -> Integer,
        disk_size_mb -> Integer,
        disk_bytes -> BigInt,
        memory_bytes -> BigInt,
        origin_id -> Nullable<Binary>,
        host_id -> Nullable<Binary>,
        created_at -> BigInt,
        updated_at -> BigInt,
    }
}

diesel::table! {
    operations (id) {
        id -> Binary,
        sandbox_id -> Nullable<Binary>,
        template_id -> Nullable<Binary>,
        kind -> Text,
        status -> Text,
        error -> Nullable<Text>,
        started_at -> BigInt,
        finished_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    hosts (id) {
        id -> Binary,
        report_epoch -> BigInt,
        report_sequence -> BigInt,
        seen_at -> BigInt,
    }
}

diesel::table! {
    audit_logs (id) {
        id -> Binary,
        at -> BigInt,
        actor_kind -> Text,
        actor_id -> Text,
        resource -> Text,
        action -> Text,
        outcome -> Text,
        reason -> Text,
    }
}

/// SQL with a text bound at its end.
type Bound<Sql> = UncheckedBind<Sql, AsExprOf<String, Text>>;
/// SQL with two texts bound in it.
type TwoTexts = SqlLiteral<Bool, Bound<SqlLiteral<Bool, Bound<SqlLiteral<Bool>>>>>;

/// That a sandbox carries a label.
pub(super) fn has_label(key: String, value: String) -> TwoTexts {
    sql::<Bool>("EXISTS (SELECT 1 FROM json_each(sandboxes.metadata) AS label WHERE label.key = ")
        .bind::<Text, _>(key)
        .sql(" AND label.value = ")
        .bind::<Text, _>(value)
        .sql(")")
}
