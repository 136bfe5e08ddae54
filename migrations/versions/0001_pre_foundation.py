"""The foundation: jobs and their events, workers, tenants and keys, tables, ledger, files.

Revision ID: 0001_pre
Revises:
"""

from alembic import op

revision = "0001_pre"
down_revision = None
branch_labels = None
depends_on = None

UP = """
CREATE TABLE tenants (
    name        text PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO tenants (name) VALUES ('default');

CREATE TABLE api_keys (
    id          text PRIMARY KEY,
    tenant      text NOT NULL REFERENCES tenants (name),
    secret_hash bytea NOT NULL,
    role        text NOT NULL CHECK (role IN ('admin', 'member')),
    label       text NOT NULL DEFAULT '',
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX api_keys_tenant_idx ON api_keys (tenant);

CREATE SEQUENCE job_numbers;

-- Partitioned by the time in its ids (app/persistence/partitions.py), so no foreign key points here.
-- First stands what lists judge thousands of rows by: Postgres reads a column by stepping over all that come before it.
CREATE TABLE jobs (
    id                uuid PRIMARY KEY,
    number            bigint NOT NULL DEFAULT nextval('job_numbers'),
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant            text NOT NULL,
    labels            jsonb,  -- NULL where there are none: the indexes below hold the others
    type              text NOT NULL,
    queue             text NOT NULL,
    state             text NOT NULL,
    priority          smallint NOT NULL DEFAULT 1,
    config            jsonb NOT NULL,
    retry             jsonb NOT NULL,
    origin            text NOT NULL,
    created_by        text NOT NULL,
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    fence             integer NOT NULL DEFAULT 0,
    attempts          integer NOT NULL DEFAULT 0,
    rescues           integer NOT NULL DEFAULT 0,
    alone             boolean NOT NULL DEFAULT false,
    event_no          integer NOT NULL DEFAULT 0,
    paused            boolean NOT NULL DEFAULT false,
    cancel_requested  boolean NOT NULL DEFAULT false,
    cancel_reason     text,
    terminate         boolean NOT NULL DEFAULT false,
    run_after         timestamptz,
    due_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    deadline_at       timestamptz,
    attempt_timeout_s double precision,
    admitted_at       timestamptz,
    turn_at           timestamptz,
    started_at        timestamptz,
    attempt_started_at timestamptz,
    progressed_at     timestamptz,
    finished_at       timestamptz,
    outcome           text,
    rows_done         bigint NOT NULL DEFAULT 0,
    rows_reached      bigint,  -- the most that any run has said, of those that say how many are done
    rows_total        bigint,
    bytes_done        bigint NOT NULL DEFAULT 0,
    bytes_total       bigint,
    stage             text,
    stage_at          timestamptz,
    stage_seconds     jsonb,
    midway_at         timestamptz,
    midway_part       double precision,
    spent             jsonb,
    parts_done        integer NOT NULL DEFAULT 0,
    parts_total       integer,
    counters          jsonb NOT NULL DEFAULT '{}',
    error_count       bigint NOT NULL DEFAULT 0,
    checkpoint        jsonb,
    result            jsonb,
    error             jsonb,
    worker            uuid,
    parent_id         uuid,
    child_no          integer,
    name              text,
    needs_left        integer NOT NULL DEFAULT 0,
    on_dependency_failure   text NOT NULL DEFAULT 'cancel',
    clone_of          uuid,
    schedule_id       uuid,
    dialect           jsonb NOT NULL DEFAULT '{}',
    extension         jsonb,
    concurrency_key   text NOT NULL DEFAULT '',
    max_concurrency   integer NOT NULL DEFAULT 0,
    memory_mb         integer,
    cpu_m             integer
) PARTITION BY RANGE (id);
CREATE TABLE jobs_other PARTITION OF jobs DEFAULT WITH (fillfactor = 70);
CREATE INDEX jobs_waiting_idx ON jobs (queue, priority, concurrency_key, max_concurrency, tenant, type, due_at, id)
    WHERE state IN ('open', 'retry_wait') AND NOT paused;
CREATE INDEX jobs_due_idx ON jobs (queue, priority, due_at) WHERE state IN ('open', 'retry_wait') AND NOT paused;
CREATE INDEX jobs_queued_idx ON jobs (queue, priority, turn_at) WHERE state = 'queued';
CREATE INDEX jobs_running_idx ON jobs (worker) WHERE state = 'running';
CREATE INDEX jobs_deadline_idx ON jobs (deadline_at)
    WHERE deadline_at IS NOT NULL AND state IN ('blocked', 'open', 'queued', 'running', 'retry_wait');
CREATE INDEX jobs_tenant_idx ON jobs (tenant, id);
CREATE INDEX jobs_tenant_state_idx ON jobs (tenant, state, id);
CREATE INDEX jobs_tenant_type_idx ON jobs (tenant, type, id);
CREATE INDEX jobs_labels_idx ON jobs USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;
CREATE INDEX jobs_labelled_idx ON jobs (tenant, id) WHERE labels IS NOT NULL;

CREATE INDEX jobs_children_idx ON jobs (parent_id, child_no) WHERE parent_id IS NOT NULL;
CREATE INDEX jobs_active_children_idx ON jobs (parent_id)
    WHERE parent_id IS NOT NULL AND state IN ('open', 'queued', 'running');
CREATE INDEX jobs_retrying_children_idx ON jobs (parent_id, run_after)
    WHERE parent_id IS NOT NULL AND state = 'retry_wait' AND NOT paused;
CREATE INDEX jobs_releasable_children_idx ON jobs (parent_id, child_no)
    WHERE parent_id IS NOT NULL AND state = 'blocked' AND needs_left = 0;
CREATE INDEX jobs_schedule_idx ON jobs (schedule_id, id) WHERE schedule_id IS NOT NULL;
CREATE INDEX jobs_active_of_schedule_idx ON jobs (schedule_id)
    WHERE schedule_id IS NOT NULL AND state IN ('blocked', 'open', 'queued', 'running', 'retry_wait');

-- Which jobs a job waits for.
CREATE TABLE job_needs (
    job_id   uuid NOT NULL,
    needs_id uuid NOT NULL,
    over     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (job_id, needs_id)
);
CREATE INDEX job_needs_needs_idx ON job_needs (needs_id) WHERE NOT over;

-- A job whose work is its children. Its counts are folded from their ends, each exactly once.
CREATE TABLE families (
    job_id          uuid PRIMARY KEY,
    tenant          text NOT NULL,
    kind            text NOT NULL,
    max_concurrency integer NOT NULL,
    max_payloads    integer NOT NULL,
    on_failure      text NOT NULL,
    total           integer NOT NULL DEFAULT 0,
    completed       integer NOT NULL DEFAULT 0,
    failed          integer NOT NULL DEFAULT 0,
    cancelled       integer NOT NULL DEFAULT 0,
    stirred         boolean NOT NULL DEFAULT false,
    reopened        boolean NOT NULL DEFAULT false,
    deliveries      uuid[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
CREATE INDEX families_stirred_idx ON families (job_id) WHERE stirred;

-- What a stage has beside its job: whether templates in its config wait for the results of others.
CREATE TABLE pipeline_stages (
    job_id      uuid PRIMARY KEY,
    unfilled    boolean NOT NULL,
    reruns_left integer NOT NULL
);

-- A template that makes jobs, and when. What is due is reckoned from next_fire_at, which stands still while paused.
CREATE TABLE schedules (
    id              uuid PRIMARY KEY,
    tenant          text NOT NULL REFERENCES tenants (name),
    name            text NOT NULL,
    template        jsonb NOT NULL,
    rules           jsonb NOT NULL,
    missed_policy   text NOT NULL,
    missed_window_s double precision NOT NULL,
    overlap_policy  text NOT NULL,
    paused          boolean NOT NULL DEFAULT false,
    version         integer NOT NULL DEFAULT 1,
    next_fire_at    timestamptz,
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
CREATE INDEX schedules_tenant_idx ON schedules (tenant, id);
CREATE INDEX schedules_next_fire_idx ON schedules (next_fire_at) WHERE NOT paused;

-- One row per job that a schedule made; a trigger by hand has no instant. The constraint is what keeps a fire single.
CREATE TABLE schedule_fires (
    job_id      uuid PRIMARY KEY,
    schedule_id uuid NOT NULL REFERENCES schedules (id) ON DELETE CASCADE,
    fire_at     timestamptz,
    UNIQUE (schedule_id, fire_at)
);

CREATE TABLE job_events (
    job_id   uuid NOT NULL,
    number   integer NOT NULL,
    tenant   text NOT NULL,
    type     text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor    text NOT NULL,
    source   text,
    target   text NOT NULL,
    fence    integer NOT NULL,
    data     jsonb NOT NULL DEFAULT '{}',
    xact     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (job_id, number)
) PARTITION BY RANGE (job_id);
CREATE TABLE job_events_other PARTITION OF job_events DEFAULT;

-- The order of the events: each row is a piece of what one statement wrote of a tenant, numbered as a whole. Its last
-- event has the number last_seq; hands_on says whether parents or dependents may have to hear of one of its events.
CREATE SEQUENCE event_segment_ids;
CREATE TABLE event_segments (
    id       bigint NOT NULL DEFAULT nextval('event_segment_ids'),
    tenant   text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    xact     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    jobs     uuid[] NOT NULL,
    numbers  integer[] NOT NULL,
    hands_on boolean NOT NULL,
    last_seq bigint
) PARTITION BY RANGE (at);
CREATE TABLE event_segments_other PARTITION OF event_segments DEFAULT;
CREATE INDEX event_segments_unnumbered_idx ON event_segments (id) WHERE last_seq IS NULL;
CREATE INDEX event_segments_seq_idx ON event_segments (tenant, last_seq) WHERE last_seq IS NOT NULL;
CREATE INDEX event_segments_xact_idx ON event_segments (xact);

-- The id is drawn when the statement holds the locks of its jobs, so the segments of a job's events are in their order.
CREATE FUNCTION note_event_segments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_segments (tenant, jobs, numbers, hands_on)
    SELECT tenant, array_agg(job_id ORDER BY place), array_agg(number ORDER BY place), bool_or(hands_on)
    FROM (
        SELECT tenant, job_id, number, row_number() OVER (PARTITION BY tenant ORDER BY at, job_id, number) - 1 AS place,
               source IS DISTINCT FROM target AND type <> 'job.rerun'
               AND (target IN ('completed', 'failed', 'cancelled', 'retry_wait')
                    OR coalesce(source, '') IN ('completed', 'failed', 'cancelled')) AS hands_on
        FROM written
    ) AS noted
    GROUP BY tenant, place / 100 ORDER BY tenant, place / 100;
    RETURN NULL;
END $$;
CREATE TRIGGER job_events_noted AFTER INSERT ON job_events REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION note_event_segments();

CREATE VIEW numbered_events AS
    SELECT s.tenant, s.xact, s.last_seq, s.last_seq - cardinality(s.jobs) + e.place AS seq, e.job_id, e.number
    FROM event_segments AS s
    CROSS JOIN LATERAL unnest(s.jobs, s.numbers) WITH ORDINALITY AS e (job_id, number, place)
    WHERE s.last_seq IS NOT NULL;

-- The last number given to an event of each tenant; only the leading engine gives one.
CREATE TABLE event_counters (
    tenant text PRIMARY KEY,
    last   bigint NOT NULL
);

-- One row per worker slot; its lease is the liveness of every job it holds.
CREATE TABLE workers (
    id          uuid PRIMARY KEY,
    queue       text NOT NULL,
    host        text NOT NULL,
    process     text NOT NULL,
    pid         integer NOT NULL,
    parent_pid  integer NOT NULL,
    may_kill    boolean NOT NULL DEFAULT false,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    draining    boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- What was asked of a queue; one that nothing was asked of has no row. ``slots`` is how many its pool is to have.
CREATE TABLE queues (
    name   text PRIMARY KEY,
    paused boolean NOT NULL DEFAULT false,
    slots  integer
);

-- How many jobs may be admitted and not over, and how many may be admitted in a period: of a tenant (name is ''), of a
-- type (tenant is ''), of a tenant's key or class of keys.
CREATE TABLE limits (
    kind            text NOT NULL CHECK (kind IN ('tenant', 'type', 'key')),
    tenant          text NOT NULL,
    name            text NOT NULL,
    max_concurrency integer,
    rate            integer,
    period_s        double precision,
    updated_by      text NOT NULL,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, tenant, name),
    CHECK (coalesce(max_concurrency, rate) IS NOT NULL),
    CHECK ((rate IS NULL) = (period_s IS NULL))
);

-- One row per admission that counts against a rate, until it does no more.
CREATE TABLE limit_uses (
    kind   text NOT NULL,
    tenant text NOT NULL,
    name   text NOT NULL,
    until  timestamptz NOT NULL
);
CREATE INDEX limit_uses_idx ON limit_uses (kind, tenant, name, until);
CREATE INDEX limit_uses_until_idx ON limit_uses (until);

-- What people changed that is no job: who, when, from what, to what.
CREATE TABLE changes (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant text NOT NULL,
    actor  text NOT NULL,
    what   text NOT NULL,
    before jsonb,
    after  jsonb
);

CREATE TABLE leaders (
    duty       text PRIMARY KEY,
    holder     uuid NOT NULL,
    term       bigint NOT NULL,
    until      timestamptz NOT NULL
);

CREATE TABLE idempotency_keys (
    tenant      text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    job_ids     uuid[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_keys_created_idx ON idempotency_keys (created_at);

CREATE TABLE declared_tables (
    tenant      text NOT NULL REFERENCES tenants (name),
    name        text NOT NULL,
    version     integer NOT NULL,
    declaration jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, name)
);

-- Who has put off a table's secondary indexes until it has filled it; a job that waits for its end builds them anyhow.
CREATE TABLE table_claims (
    tenant     text NOT NULL,
    table_name text NOT NULL,
    job_id     uuid NOT NULL,
    fence      integer NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, table_name)
);

-- Where an import stands: a lane's committed work is a prefix of its rows in file order; it took so many seconds.
CREATE TABLE import_lanes (
    job_id      uuid NOT NULL,
    lane        integer NOT NULL,
    batch       bigint NOT NULL,
    seconds     double precision NOT NULL,
    PRIMARY KEY (job_id, lane)
);

-- The books: each batch's ranges must tile the file.
CREATE TABLE import_batches (
    job_id      uuid NOT NULL,
    batch       bigint NOT NULL,
    lane        integer NOT NULL,
    first_line  bigint NOT NULL,
    last_line   bigint NOT NULL,
    first_byte  bigint NOT NULL,
    end_byte    bigint NOT NULL,
    counts      jsonb NOT NULL,
    seconds     double precision NOT NULL,
    PRIMARY KEY (job_id, batch, lane)
) PARTITION BY RANGE (job_id);
CREATE TABLE import_batches_other PARTITION OF import_batches DEFAULT;

CREATE TABLE failed_records (
    job_id      uuid NOT NULL,
    line        bigint NOT NULL,
    tenant      text NOT NULL,
    first_byte  bigint NOT NULL,
    end_byte    bigint NOT NULL,
    raw         text,
    raw_is_base64 boolean NOT NULL DEFAULT false,
    field       text,
    code        text NOT NULL,
    message     text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    corrected   text,
    resolved_by uuid,
    resolved_at timestamptz,
    PRIMARY KEY (job_id, line)
) PARTITION BY RANGE (job_id);
CREATE TABLE failed_records_other PARTITION OF failed_records DEFAULT;

-- What job types logged; the trail beside it tells what happened to the job.
CREATE TABLE job_logs (
    job_id uuid NOT NULL,
    fence  integer NOT NULL,
    number integer NOT NULL,
    tenant text NOT NULL,
    at     timestamptz NOT NULL,
    level  text NOT NULL,
    event  text NOT NULL,
    data   jsonb NOT NULL,
    PRIMARY KEY (job_id, fence, number)
) PARTITION BY RANGE (job_id);
CREATE TABLE job_logs_other PARTITION OF job_logs DEFAULT;

-- What rows were before a revertible job first wrote them; image is null where there was none. One that the job deleted
-- is to stand there no more.
CREATE TABLE before_images (
    job_id      uuid NOT NULL,
    table_name  text NOT NULL,
    key         text[] NOT NULL,
    image       jsonb,
    is_deleted  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (job_id, table_name, key)
) PARTITION BY RANGE (job_id);
CREATE TABLE before_images_other PARTITION OF before_images DEFAULT;

CREATE TABLE artifacts (
    id           uuid PRIMARY KEY,
    job_id       uuid NOT NULL,
    tenant       text NOT NULL,
    kind         text NOT NULL,
    name         text NOT NULL,
    content_type text NOT NULL,
    bucket       text NOT NULL,
    key          text NOT NULL,
    size_bytes   bigint NOT NULL,
    sha256       text,
    rows         bigint,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz,
    removed_at   timestamptz,
    sealed_bytes bigint
);
CREATE INDEX artifacts_job_idx ON artifacts (job_id);
CREATE INDEX artifacts_expires_idx ON artifacts (expires_at) WHERE removed_at IS NULL;

-- Small values that a tenant's jobs share.
CREATE TABLE cache_entries (
    tenant     text NOT NULL,
    key        text NOT NULL,
    value      jsonb NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX cache_entries_expires_idx ON cache_entries (tenant, expires_at);

-- How far each listener has heard the events of each tenant.
CREATE TABLE cursors (
    name     text NOT NULL,
    tenant   text NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (name, tenant)
);

CREATE TABLE uploads (
    id           uuid PRIMARY KEY,
    tenant       text NOT NULL,
    bucket       text NOT NULL,
    key          text NOT NULL,
    filename     text NOT NULL,
    upload_id    text,
    size_bytes   bigint,  -- as the client announced it, and so the type
    content_type text,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    completed_at timestamptz
);
CREATE INDEX uploads_tenant_idx ON uploads (tenant, id);
CREATE INDEX uploads_open_idx ON uploads (created_at) WHERE completed_at IS NULL;

-- Which sheet of a tenant's workbooks goes to which table.
CREATE TABLE workbooks (
    tenant     text NOT NULL,
    name       text NOT NULL,
    sheets     jsonb NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, name)
);

-- Buckets and receivers of tenants' own. What opens them is sealed by the installation's master key.
CREATE TABLE sinks (
    tenant     text NOT NULL,
    name       text NOT NULL,
    origin     text,
    bucket     text,
    region     text,
    endpoint   text,
    prefix     text,
    sealed     bytea NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, name),
    CHECK ((origin IS NULL) = (bucket IS NOT NULL AND region IS NOT NULL AND prefix IS NOT NULL))
);

-- Keys that lines of exports are encrypted with, sealed likewise.
CREATE TABLE line_keys (
    tenant     text NOT NULL,
    name       text NOT NULL,
    sealed     bytea NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, name)
);

-- Which job writes under a name that somebody chose: one at a time.
CREATE TABLE export_names (
    place  text NOT NULL,
    stem   text NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (place, stem)
);
CREATE INDEX export_names_job_idx ON export_names (job_id);

-- Different values of filterable columns, for pickers; and of which rows they have not been gathered yet.
CREATE TABLE picker_values (
    tenant      text NOT NULL,
    table_name  text NOT NULL,
    column_name text NOT NULL,
    value       text NOT NULL,
    PRIMARY KEY (tenant, table_name, column_name, value)
);
CREATE TABLE picker_touches (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     text NOT NULL,
    table_name text NOT NULL,
    job_id     uuid,
    whole      boolean NOT NULL
);
CREATE INDEX picker_touches_table_idx ON picker_touches (tenant, table_name, number);

-- Tables that have a mirror in a search server: the index that is written to, and the one that is to replace it.
CREATE TABLE mirrors (
    tenant         text NOT NULL,
    table_name     text NOT NULL,
    index_name     text NOT NULL,
    is_made        boolean NOT NULL DEFAULT false,
    building       text,
    building_job   uuid,
    retired        text,
    rebuild_wanted boolean NOT NULL,
    is_dropped     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant, table_name)
);
-- Keys of rows that were written and are not in the mirror yet, noted by the transaction that wrote them.
CREATE TABLE mirror_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     text NOT NULL,
    table_name text NOT NULL,
    job_id     uuid,
    rows       integer NOT NULL,
    keys       json NOT NULL
);
CREATE INDEX mirror_changes_table_idx ON mirror_changes (tenant, table_name, job_id, id);
CREATE SEQUENCE mirror_versions;

-- Of a statement's rows (changed), a few thousand keys a line. TG_ARGV: the tenant, the key's columns as text.
CREATE FUNCTION note_mirror_changes() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET timezone = 'UTC' SET datestyle = 'ISO' SET extra_float_digits = 1 AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE mirrors SET rebuild_wanted = true WHERE tenant = TG_ARGV[0] AND table_name = TG_TABLE_NAME;
    ELSE
        EXECUTE format(
            'INSERT INTO mirror_changes (tenant, table_name, job_id, rows, keys)
             SELECT %L, %L, job, count(*), json_agg(key)
             FROM (SELECT %s AS job, json_build_array(%s) AS key, (row_number() OVER () - 1) / 5000 AS piece
                   FROM changed) AS noted
             GROUP BY job, piece',
            TG_ARGV[0], TG_TABLE_NAME, CASE TG_OP WHEN 'DELETE' THEN 'NULL::uuid' ELSE 'haulier_job_id' END, TG_ARGV[1]
        );
    END IF;
    RETURN NULL;
END $$;

CREATE EXTENSION IF NOT EXISTS pg_trgm;
"""

DOWN = """
DROP VIEW numbered_events;
DROP TABLE mirrors, mirror_changes;
DROP TABLE changes, limit_uses, limits, queues, picker_values, picker_touches, export_names, line_keys, sinks, uploads,
    workbooks, cursors, cache_entries, artifacts, before_images, job_logs, failed_records, import_batches, import_lanes,
    table_claims, declared_tables, idempotency_keys, leaders, workers, event_counters, event_segments, job_events,
    schedule_fires, schedules, pipeline_stages, families, job_needs, jobs, api_keys, tenants;
DROP SEQUENCE job_numbers, event_segment_ids, mirror_versions;
DROP FUNCTION note_mirror_changes, note_event_segments;
"""


def upgrade() -> None:
    """Make everything."""
    op.execute(UP)


def downgrade() -> None:
    """Drop everything."""
    op.execute(DOWN)
