-- Conventions: IDs are 16-byte UUIDs, times are microseconds since 1970-01-01 UTC, sizes are named
-- with their unit. Only an audit entry's actor and resource are text, since they may be of any kind.
-- Defaults (sizes among them) are the program's, never this file's.

-- "SBOX": tells this database from another program's.
PRAGMA application_id = 1396854616;

CREATE TABLE sandboxes (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    team_id         BLOB    NOT NULL CHECK (length(team_id) = 16),
    state           TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    op_id           BLOB    CHECK (length(op_id) = 16),
    op_kind         TEXT,
    op_started_at   INTEGER,
    op_lease_until  INTEGER,
    version         INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    template        TEXT    NOT NULL,
    template_id     BLOB    NOT NULL CHECK (length(template_id) = 16),
    vcpus           INTEGER NOT NULL,
    memory_mb       INTEGER NOT NULL,
    disk_size_mb    INTEGER NOT NULL,
    timeout_sec     INTEGER,
    on_timeout      TEXT    NOT NULL,
    metadata        TEXT    NOT NULL CHECK (json_valid(metadata)),
    env             TEXT    NOT NULL CHECK (json_valid(env)),
    host_id         BLOB    CHECK (length(host_id) = 16),
    idempotency_key TEXT,
    build_id        BLOB    CHECK (length(build_id) = 16),
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    expires_at      INTEGER,
    updated_at      INTEGER NOT NULL,
    CHECK (
        (op_id IS NULL) = (op_kind IS NULL)
        AND (op_id IS NULL) = (op_started_at IS NULL)
        AND (op_id IS NULL) = (op_lease_until IS NULL)
    )
) STRICT;

CREATE UNIQUE INDEX sandboxes_idempotency ON sandboxes (team_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX sandboxes_team ON sandboxes (team_id, id);
CREATE INDEX sandboxes_template ON sandboxes (template_id, id);
CREATE INDEX sandboxes_state ON sandboxes (state, id);
CREATE INDEX sandboxes_expires_at ON sandboxes (expires_at) WHERE expires_at IS NOT NULL;

-- Sandboxes outlive their template's name, and templates the sandbox that they were taken from: no
-- foreign keys.
CREATE TABLE templates (
    id             BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    team_id        BLOB    NOT NULL CHECK (length(team_id) = 16),
    name           TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    op_id          BLOB    CHECK (length(op_id) = 16),
    op_kind        TEXT,
    op_started_at  INTEGER,
    op_lease_until INTEGER,
    version        INTEGER NOT NULL,
    vcpus          INTEGER NOT NULL,
    memory_mb      INTEGER NOT NULL,
    disk_size_mb   INTEGER NOT NULL,
    disk_bytes     INTEGER NOT NULL,
    memory_bytes   INTEGER NOT NULL,
    origin_id      BLOB    CHECK (length(origin_id) = 16),
    layer          BLOB    CHECK (length(layer) = 32),
    host_id        BLOB    CHECK (length(host_id) = 16),
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    CHECK (
        (op_id IS NULL) = (op_kind IS NULL)
        AND (op_id IS NULL) = (op_started_at IS NULL)
        AND (op_id IS NULL) = (op_lease_until IS NULL)
    )
) STRICT;

-- A template that is being deleted has given up its name.
CREATE UNIQUE INDEX templates_name ON templates (team_id, name) WHERE state <> 'deleting';
CREATE INDEX templates_team ON templates (team_id, kind, id);
CREATE INDEX templates_layer ON templates (layer, id) WHERE layer IS NOT NULL;

-- A build outlives its sandbox, its template and the template that it started from: no foreign keys.
CREATE TABLE template_builds (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    team_id         BLOB    NOT NULL CHECK (length(team_id) = 16),
    name            TEXT    NOT NULL,
    base_template   TEXT    NOT NULL,
    base_id         BLOB    NOT NULL CHECK (length(base_id) = 16),
    recipe          TEXT    NOT NULL CHECK (json_valid(recipe)),
    context         TEXT,
    healthcheck     TEXT    CHECK (json_valid(healthcheck)),
    vcpus           INTEGER NOT NULL,
    memory_mb       INTEGER NOT NULL,
    disk_size_mb    INTEGER NOT NULL,
    no_cache        INTEGER NOT NULL CHECK (no_cache IN (0, 1)),
    status          TEXT    NOT NULL,
    current_step    INTEGER NOT NULL,
    total_steps     INTEGER NOT NULL,
    attempt         INTEGER NOT NULL,
    handed_back     INTEGER NOT NULL,
    lease_until     INTEGER,
    sandbox_id      BLOB    CHECK (length(sandbox_id) = 16),
    template_id     BLOB    CHECK (length(template_id) = 16),
    failure         TEXT    CHECK (json_valid(failure)),
    actor_kind      TEXT    NOT NULL,
    actor_id        TEXT    NOT NULL,
    idempotency_key TEXT,
    version         INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    updated_at      INTEGER NOT NULL
) STRICT;

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
    build_id      BLOB    NOT NULL REFERENCES template_builds (id) ON DELETE CASCADE,
    attempt       INTEGER NOT NULL,
    step          INTEGER NOT NULL,
    phase         TEXT    NOT NULL,
    cmd           TEXT    NOT NULL,
    exit_code     INTEGER,
    ok            INTEGER CHECK (ok IN (0, 1)),
    elapsed_ms    INTEGER NOT NULL,
    cached        INTEGER NOT NULL CHECK (cached IN (0, 1)),
    dropped_bytes INTEGER NOT NULL,
    PRIMARY KEY (build_id, attempt, step)
) STRICT;

-- Append-only. `cursor` rises within a build.
CREATE TABLE template_build_log (
    build_id BLOB    NOT NULL REFERENCES template_builds (id) ON DELETE CASCADE,
    cursor   INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    stream   TEXT    NOT NULL,
    data     BLOB    NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (build_id, cursor)
) STRICT;

-- Uploaded files, named after their content. Kept while builds wait for them, and a while longer.
-- The large column is the last, so that the others are read without it.
CREATE TABLE template_build_contexts (
    name    TEXT    NOT NULL PRIMARY KEY,
    kept_at INTEGER NOT NULL,
    data    BLOB    NOT NULL
) STRICT;

CREATE INDEX template_build_contexts_kept_at ON template_build_contexts (kept_at);

-- An operation outlives its sandbox and its template: no foreign keys.
CREATE TABLE operations (
    id          BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    sandbox_id  BLOB    CHECK (length(sandbox_id) = 16),
    template_id BLOB    CHECK (length(template_id) = 16),
    kind        TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    error       TEXT    CHECK (json_valid(error)),
    started_at  INTEGER NOT NULL,
    finished_at INTEGER,
    CHECK ((status = 'failed') = (error IS NOT NULL))
) STRICT;

CREATE INDEX operations_sandbox ON operations (sandbox_id, started_at, id);
CREATE INDEX operations_finished_at ON operations (finished_at) WHERE finished_at IS NOT NULL;

-- When a host was last heard, for all who share it.
CREATE TABLE hosts (
    id              BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    report_epoch    INTEGER NOT NULL,
    report_sequence INTEGER NOT NULL,
    seen_at         INTEGER NOT NULL
) STRICT;

CREATE TABLE audit_logs (
    id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    at         INTEGER NOT NULL,
    actor_kind TEXT    NOT NULL,
    actor_id   TEXT    NOT NULL,
    resource   TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    outcome    TEXT    NOT NULL,
    reason     TEXT    NOT NULL
) STRICT;

CREATE INDEX audit_logs_resource ON audit_logs (resource, at, id);
