-- The tables of version 3, and a task. A release is never changed, and nor is this.
CREATE TABLE graceful_tasks (
    id uuid PRIMARY KEY,
    state text NOT NULL,
    priority smallint NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    granted integer NOT NULL,
    cancel boolean NOT NULL DEFAULT false,
    created bigint NOT NULL,
    due bigint NOT NULL,
    started bigint,
    ended bigint,
    keep bigint NOT NULL,
    forget bigint,
    lease_until bigint,
    owner text,
    timeout bigint,
    kind text NOT NULL,
    client_id text,
    trace text,
    key text,
    fingerprint bytea,
    progress text,
    error text,
    output text,
    input text NOT NULL,
    interrupted integer NOT NULL DEFAULT 0,
    keep_dead bigint
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX graceful_tasks_line ON graceful_tasks (priority DESC, due, id) WHERE state = 'queued';
CREATE INDEX graceful_tasks_running ON graceful_tasks (id) WHERE state = 'running';
CREATE INDEX graceful_tasks_dead ON graceful_tasks (id) WHERE state = 'dead';
CREATE INDEX graceful_tasks_cancelled ON graceful_tasks (id) WHERE state = 'cancelled';
CREATE INDEX graceful_tasks_past ON graceful_tasks (forget) WHERE forget IS NOT NULL;
CREATE INDEX graceful_tasks_suspects ON graceful_tasks (due, id) WHERE state = 'queued' AND interrupted > 0;
CREATE INDEX graceful_tasks_clients ON graceful_tasks (client_id, id) WHERE client_id IS NOT NULL;
CREATE UNIQUE INDEX graceful_tasks_keys ON graceful_tasks (key) WHERE key IS NOT NULL;
CREATE TABLE graceful_events (
    number bigint PRIMARY KEY,
    at bigint NOT NULL,
    task_id uuid NOT NULL,
    state text NOT NULL,
    attempt integer NOT NULL,
    kind text NOT NULL,
    client_id text,
    error text
);
CREATE TABLE graceful_log (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    stream text NOT NULL,
    head bigint NOT NULL
) WITH (fillfactor = 10);
CREATE UNLOGGED TABLE graceful_pulse (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    since bigint NOT NULL,
    latest bigint NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE graceful_schema (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL,
    least bigint NOT NULL
);
CREATE TABLE graceful_attempts (
    task_id uuid NOT NULL REFERENCES graceful_tasks ON DELETE CASCADE,
    attempt integer NOT NULL,
    started bigint NOT NULL,
    ended bigint NOT NULL,
    owner text,
    error text,
    PRIMARY KEY (task_id, attempt)
);
INSERT INTO graceful_schema (version, least) VALUES (0, 0);
UPDATE graceful_schema SET version = 3, least = 1;
INSERT INTO graceful_log (stream, head) VALUES ('0123456789ab', 0);
INSERT INTO graceful_tasks (id, state, priority, attempt, max_attempts, granted, created, due, keep, timeout, kind, client_id, trace, key, fingerprint, input) VALUES ('00000000-0000-7000-8000-000000000001', 'queued', 0, 0, 3, 3, 1764000000000, 1764000000000, 3600000, NULL, 'sleep', NULL, NULL, NULL, NULL, '{}');
