//! The tables as PostgreSQL has them: `uuid`, `timestamptz` and `jsonb`.

use diesel::{
    dsl::{AsExprOf, sql},
    expression::{SqlLiteral, UncheckedBind},
    sql_types::{Bool, Text},
};

diesel::table! {
    sandboxes (id) {
        id -> Uuid,
        team_id -> Uuid,
        state -> Text,
        reason -> Text,
        op_id -> Nullable<Uuid>,
        op_kind -> Nullable<Text>,
        op_started_at -> Nullable<Timestamptz>,
        op_lease_until -> Nullable<Timestamptz>,
        version -> BigInt,
        generation -> BigInt,
        template -> Text,
        template_id -> Uuid,
        vcpus -> Integer,
        memory_mb -> Integer,
        disk_size_mb -> Integer,
        timeout_sec -> Nullable<BigInt>,
        on_timeout -> Text,
        metadata -> Jsonb,
        env -> Jsonb,
        host_id -> Nullable<Uuid>,
        idempotency_key -> Nullable<Text>,
        build_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        expires_at -> Nullable<Timestamptz>,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    templates (id) {
        id -> Uuid,
        team_id -> Uuid,
        name -> Text,
        kind -> Text,
        state -> Text,
        op_id -> Nullable<Uuid>,
        op_kind -> Nullable<Text>,
        op_started_at -> Nullable<Timestamptz>,
        op_lease_until -> Nullable<Timestamptz>,
        version -> BigInt,
        vcpus -> Integer,
        memory_mb -> Integer,
        disk_size_mb -> Integer,
        disk_bytes -> BigInt,
        memory_bytes -> BigInt,
        origin_id -> Nullable<Uuid>,
        layer -> Nullable<Binary>,
        host_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    template_builds (id) {
        id -> Uuid,
        team_id -> Uuid,
        name -> Text,
        base_template -> Text,
        base_id -> Uuid,
        recipe -> Jsonb,
        context -> Nullable<Text>,
        healthcheck -> Nullable<Jsonb>,
        vcpus -> Integer,
        memory_mb -> Integer,
        disk_size_mb -> Integer,
        no_cache -> Bool,
        status -> Text,
        current_step -> BigInt,
        total_steps -> BigInt,
        attempt -> BigInt,
        handed_back -> BigInt,
        lease_until -> Nullable<Timestamptz>,
        sandbox_id -> Nullable<Uuid>,
        template_id -> Nullable<Uuid>,
        failure -> Nullable<Jsonb>,
        actor_kind -> Text,
        actor_id -> Text,
        idempotency_key -> Nullable<Text>,
        version -> BigInt,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    template_build_steps (build_id, attempt, step) {
        build_id -> Uuid,
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
        build_id -> Uuid,
        cursor -> BigInt,
        step -> BigInt,
        stream -> Text,
        data -> Binary,
        at -> Timestamptz,
    }
}

diesel::table! {
    template_build_contexts (name) {
        name -> Text,
        data -> Binary,
        kept_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(template_builds, template_build_contexts);

diesel::table! {
    operations (id) {
        id -> Uuid,
        sandbox_id -> Nullable<Uuid>,
        template_id -> Nullable<Uuid>,
        kind -> Text,
        status -> Text,
        error -> Nullable<Jsonb>,
        started_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    hosts (id) {
        id -> Uuid,
        report_epoch -> BigInt,
        report_sequence -> BigInt,
        seen_at -> Timestamptz,
    }
}

diesel::table! {
    audit_logs (id) {
        id -> Uuid,
        at -> Timestamptz,
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

/// That a sandbox carries a label. Written so that the index on `metadata` serves it.
pub(super) fn has_label(key: String, value: String) -> TwoTexts {
    sql::<Bool>("sandboxes.metadata @> jsonb_build_object(")
        .bind::<Text, _>(key)
        .sql(", ")
        .bind::<Text, _>(value)
        .sql(")")
}
