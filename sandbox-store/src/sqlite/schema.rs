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
        build_id -> Nullable<Binary>,
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
        layer -> Nullable<Binary>,
        host_id -> Nullable<Binary>,
        created_at -> BigInt,
        updated_at -> BigInt,
    }
}

diesel::table! {
    template_builds (id) {
        id -> Binary,
        team_id -> Binary,
        name -> Text,
        base_template -> Text,
        base_id -> Binary,
        recipe -> Text,
        context -> Nullable<Text>,
        healthcheck -> Nullable<Text>,
        vcpus -> Integer,
        memory_mb -> Integer,
        disk_size_mb -> Integer,
        no_cache -> Bool,
        status -> Text,
        current_step -> BigInt,
        total_steps -> BigInt,
        attempt -> BigInt,
        handed_back -> BigInt,
        lease_until -> Nullable<BigInt>,
        sandbox_id -> Nullable<Binary>,
        template_id -> Nullable<Binary>,
        failure -> Nullable<Text>,
        actor_kind -> Text,
        actor_id -> Text,
        idempotency_key -> Nullable<Text>,
        version -> BigInt,
        created_at -> BigInt,
        started_at -> Nullable<BigInt>,
        finished_at -> Nullable<BigInt>,
        updated_at -> BigInt,
    }
}

diesel::table! {
    template_build_steps (build_id, attempt, step) {
        build_id -> Binary,
        attempt -> BigInt,
        step -> BigInt,
        phase -> Text,
        cmd -> Text,
        exit_code -> Nullable<Integer>,
        ok -> Nullable<Bool>,
        elapsed_ms -> BigInt,
        cached -> Bool,
        dropped_bytes -> BigInt,
    }
}

diesel::table! {
    template_build_log (build_id, cursor) {
        build_id -> Binary,
        cursor -> BigInt,
        step -> BigInt,
        stream -> Text,
        data -> Binary,
        at -> BigInt,
    }
}

diesel::table! {
    template_build_contexts (name) {
        name -> Text,
        kept_at -> BigInt,
        data -> Binary,
    }
}

diesel::allow_tables_to_appear_in_same_query!(template_builds, template_build_contexts);

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
