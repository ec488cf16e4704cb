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
    build_id        uuid,
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
    layer          bytea       CHECK (octet_length(layer) = 32),
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
CREATE INDEX templates_layer ON templates (layer, id) WHERE layer IS NOT NULL;

-- A build outlives its sandbox, its template and the template that it started from: no foreign keys.
CREATE TABLE template_builds (
    id              uuid        NOT NULL PRIMARY KEY,
    team_id         uuid        NOT NULL,
    name            text        NOT NULL,
    base_template   text        NOT NULL,
    base_id         uuid        NOT NULL,
    recipe          jsonb       NOT NULL,
    context         text,
    healthcheck     jsonb,
    vcpus           integer     NOT NULL,
    memory_mb       integer     NOT NULL,
    disk_size_mb    integer     NOT NULL,
    no_cache        boolean     NOT NULL,
    status          text        NOT NULL,
    current_step    bigint      NOT NULL,
    total_steps     bigint      NOT NULL,
    attempt         bigint      NOT NULL,
    handed_back     bigint      NOT NULL,
    lease_until     timestamptz,
    sandbox_id      uuid,
    template_id     uuid,
    failure         jsonb,
    actor_kind      text        NOT NULL,
    actor_id        text        NOT NULL,
    idempotency_key text,
    version         bigint      NOT NULL,
    created_at      timestamptz NOT NULL,
    started_at      timestamptz,
    finished_at     timestamptz,
    updated_at      timestamptz NOT NULL
);

CREATE UNIQUE INDEX template_builds_idempotency ON template_builds (team_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX template_builds_status ON template_builds (status, id);
CREATE INDEX template_builds_team ON template_builds (team_id, id);
CREATE INDEX template_builds_name ON template_builds (name, id);
CREATE INDEX template_builds_finished_at ON template_builds (finished_at)
    WHERE finished_at IS NOT NULL;
CREATE INDEX template_builds_context ON template_builds (context)
    WHERE context IS NOT NULL AND status IN ('pending', 'running');

CREATE TABLE template_build_steps (
    build_id      uuid    NOT NULL REFERENCES template_builds (id) ON DELETE CASCADE,
    attempt       bigint  NOT NULL,
    step          bigint  NOT NULL,
    phase         text    NOT NULL,
    cmd           text    NOT NULL,
    exit_code     integer,
    ok            boolean,
    elapsed_ms    bigint  NOT NULL,
    cached        boolean NOT NULL,
    dropped_bytes bigint  NOT NULL,
    PRIMARY KEY (build_id, attempt, step)
);

-- Append-only. `cursor` rises within a build.
CREATE TABLE template_build_log (
    build_id uuid        NOT NULL REFERENCES template_builds (id) ON DELETE CASCADE,
    cursor   bigint      NOT NULL,
    step     bigint      NOT NULL,
    stream   text        NOT NULL,
    data     bytea       NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (build_id, cursor)
);

-- Uploaded files, named after their content. Kept while builds wait for them, and a while longer.
CREATE TABLE template_build_contexts (
    name    text        NOT NULL PRIMARY KEY,
    data    bytea       NOT NULL,
    kept_at timestamptz NOT NULL
);

-- Mostly compressed by whoever sends it.
ALTER TABLE template_build_contexts ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX template_build_contexts_kept_at ON template_build_contexts (kept_at);

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
