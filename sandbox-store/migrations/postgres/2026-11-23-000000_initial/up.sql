-- Conventions: the native types throughout (uuid, timestamptz, jsonb); sizes are named with their
-- unit. Only an audit entry's actor and resource are text, since they may be of any kind.
-- Defaults (sizes among them) are the program's, never this file's.

CREATE TABLE sandboxes (
    id              uuid        NOT NULL PRIMARY KEY,
    team_id         uuid        NOT NULL,
    state           text        NOT NULL,
    reason          text        NOT NULL,
    op_id           uuid,
    op_kind         text,
    op_started_at   timestamptz,
    op_lease_until  timestamptz,
    version         bigint      NOT NULL,
    generation      bigint      NOT NULL,
    template        text        NOT NULL,
    template_id     uuid        NOT NULL,
    vcpus           integer     NOT NULL,
    memory_mb       integer     NOT NULL,
    disk_size_mb    integer     NOT NULL,
    timeout_sec     bigint,
    on_timeout      text        NOT NULL,
    metadata        jsonb       NOT NULL,
    env             jsonb       NOT NULL,
    host_id         uuid,
    idempotency_key text,
    created_at      timestamptz NOT NULL,
    started_at      timestamptz,
    expires_at      timestamptz,
    updated_at      timestamptz NOT NULL,
    CHECK (
        (op_id IS NULL) = (op_kind IS NULL)
        AND (op_id IS NULL) = (op_started_at IS NULL)
        AND (op_id IS NULL) = (op_lease_until IS NULL)
    )
);

CREATE UNIQUE INDEX sandboxes_idempotency ON sandboxes (team_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX sandboxes_team ON sandboxes (team_id, id);
CREATE INDEX sandboxes_template ON sandboxes (template_id, id);
CREATE INDEX sandboxes_state ON sandboxes (state, id);
CREATE INDEX sandboxes_expires_at ON sandboxes (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX sandboxes_metadata ON sandboxes USING gin (metadata jsonb_path_ops);

-- Sandboxes outlive their template's name, and templates the sandbox that they were taken from: no
-- foreign keys.
CREATE TABLE templates (
    id             uuid        NOT NULL PRIMARY KEY,
    team_id        uuid        NOT NULL,
    name           text        NOT NULL,
    kind           text        NOT NULL,
    state          text        NOT NULL,
    op_id          uuid,
    op_kind        text,
    op_started_at  timestamptz,
    op_lease_until timestamptz,
    version        bigint      NOT NULL,
    vcpus          integer     NOT NULL,
    memory_mb      integer     NOT NULL,
    disk_size_mb   integer     NOT NULL,
    disk_bytes     bigint      NOT NULL,
    memory_bytes   bigint      NOT NULL,
    origin_id      uuid,
    host_id        uuid,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    CHECK (
        (op_id IS NULL) = (op_kind IS NULL)
        AND (op_id IS NULL) = (op_started_at IS NULL)
        AND (op_id IS NULL) = (op_lease_until IS NULL)
    )
);

-- A template that is being deleted has given up its name.
CREATE UNIQUE INDEX templates_name ON templates (team_id, name) WHERE state <> 'deleting';
CREATE INDEX templates_team ON templates (team_id, kind, id);

-- An operation outlives its sandbox and its template: no foreign keys.
CREATE TABLE operations (
    id          uuid        NOT NULL PRIMARY KEY,
    sandbox_id  uuid,
    template_id uuid,
    kind        text        NOT NULL,
    status      text        NOT NULL,
    error       jsonb,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    CHECK ((status = 'failed') = (error IS NOT NULL))
);

CREATE INDEX operations_sandbox ON operations (sandbox_id, started_at, id);
CREATE INDEX operations_finished_at ON operations (finished_at) WHERE finished_at IS NOT NULL;

-- When a host was last heard, for all who share it.
CREATE TABLE hosts (
    id              uuid        NOT NULL PRIMARY KEY,
    report_epoch    bigint      NOT NULL,
    report_sequence bigint      NOT NULL,
    seen_at         timestamptz NOT NULL
);

CREATE TABLE audit_logs (
    id         uuid        NOT NULL PRIMARY KEY,
    at         timestamptz NOT NULL,
    actor_kind text        NOT NULL,
    actor_id   text        NOT NULL,
    resource   text        NOT NULL,
    action     text        NOT NULL,
    outcome    text        NOT NULL,
    reason     text        NOT NULL
);

CREATE INDEX audit_logs_resource ON audit_logs (resource, at, id);
