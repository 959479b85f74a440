//! The tables: made and brought up to date as the queue is opened.
//!
//! # Rolling upgrades
//! Servers of two versions work on the same tables while a rollout lasts, and after one that is rolled back. So a
//! migration only adds: tables, indexes, and columns that may be NULL or have a default; statements name their columns.
//! What an older server could not live with raises [`LEAST`], and only then does it refuse to open (`TooNew`).

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use uuid::Uuid;

use super::failure::not_opened;
use crate::error::OpenError;

/// The migrations that this code knows; each takes the schema from the version before it.
const MIGRATIONS: [&str; 4] = [FIRST, INTERRUPTIONS, ATTEMPTS, QUEUES];

/// The lowest version a server must know to work with what [`MIGRATIONS`] make.
const LEAST: i64 = 1;

/// `graceful`, in ASCII: an advisory lock on this number is ours. Pods that start together take turns.
const LOCK: i64 = 0x6772_6163_6566_756c;

/// Times and spans are milliseconds, times on the server's clock. `granted` is the attempts a task was handed in with,
/// and is given again by each retry; `forget` is when it may be deleted; `owner` is who ran it last.
/// Only what is claimed often, looked for often or unique has an index: each is written three times in a task's life.
/// No index has `lease_until`, so that renewing writes none. `graceful_pulse` is not logged: writing it costs no sync,
/// and a crash of the server, which empties it, is a break in the pulse.
const FIRST: &str = "
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
    input text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX graceful_tasks_line ON graceful_tasks (priority DESC, due, id) WHERE state = 'queued';
CREATE INDEX graceful_tasks_running ON graceful_tasks (id) WHERE state = 'running';
CREATE INDEX graceful_tasks_dead ON graceful_tasks (id) WHERE state = 'dead';
CREATE INDEX graceful_tasks_cancelled ON graceful_tasks (id) WHERE state = 'cancelled';
CREATE INDEX graceful_tasks_past ON graceful_tasks (forget) WHERE forget IS NOT NULL;
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
INSERT INTO graceful_schema (version, least) VALUES (0, 0);
";

/// `interrupted`: processes that fell silent while they ran it, since it was last handed in; a server of before adds none.
/// `keep_dead`: how long it is remembered as a dead letter; NULL as the server says that ends it.
const INTERRUPTIONS: &str = "
ALTER TABLE graceful_tasks ADD COLUMN interrupted integer NOT NULL DEFAULT 0, ADD COLUMN keep_dead bigint;
CREATE INDEX graceful_tasks_suspects ON graceful_tasks (due, id) WHERE state = 'queued' AND interrupted > 0;
";

/// Attempts that another followed; the latest is in the task's own row. A server of before notes none, and forgets them with their tasks
/// by the key all the same.
const ATTEMPTS: &str = "
CREATE TABLE graceful_attempts (
    task_id uuid NOT NULL REFERENCES graceful_tasks ON DELETE CASCADE,
    attempt integer NOT NULL,
    started bigint NOT NULL,
    ended bigint NOT NULL,
    owner text,
    error text,
    PRIMARY KEY (task_id, attempt)
);
";

/// `lane`: the task's concurrency key, or empty; `tokens` and `filled`: what a bucket of starts held when. The index has each queue's, key's and
/// priority's tasks by themselves ([`line`](super::line)). A server of before submits to the queue `default`, and claims from all, whatever they
/// are bounded to: for that it still needs `graceful_tasks_line`, which a later version may drop.
const QUEUES: &str = "
ALTER TABLE graceful_tasks ADD COLUMN queue text COLLATE \"C\" NOT NULL DEFAULT 'default',
    ADD COLUMN lane text COLLATE \"C\" NOT NULL DEFAULT '';
CREATE TABLE graceful_queues (
    name text COLLATE \"C\" PRIMARY KEY,
    paused boolean NOT NULL DEFAULT false,
    concurrency integer,
    per_key integer,
    rate double precision,
    burst integer,
    tokens double precision,
    filled bigint,
    max_attempts integer,
    first_pause bigint,
    longest_pause bigint
) WITH (fillfactor = 50);
INSERT INTO graceful_queues (name) VALUES ('default');
CREATE INDEX graceful_tasks_queues ON graceful_tasks (queue, lane, (- priority::integer), due, id) WHERE state = 'queued';
";

/// Makes what is missing; the name of this queue's numbering.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<String, OpenError> {
    let encoding: String = sqlx::query_scalar("SELECT current_setting('server_encoding')")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| not_opened(&error))?;
    if encoding != "UTF8" {
        let detail = format!("the database's encoding is {encoding}; create it with ENCODING 'UTF8'");
        return Err(OpenError::Engine { detail });
    }
    let known = MIGRATIONS.len() as i64;
    let mut found = schema_version(connection).await.map_err(|error| not_opened(&error))?;
    if found.version < known {
        found = migrate(connection).await.map_err(|error| not_opened(&error))?;
    }
    if found.least > known {
        return Err(OpenError::TooNew { found: found.version, known });
    }
    let stream = sqlx::query_scalar("SELECT stream FROM graceful_log").fetch_one(connection).await;
    stream.map_err(|error| not_opened(&error))
}

#[derive(Debug, Clone, Copy)]
struct SchemaVersion {
    version: i64,
    least: i64,
}

/// Asked before anything is made, so that a user who may not make tables can still open a queue that is up to date.
async fn schema_version(connection: &mut PgConnection) -> sqlx::Result<SchemaVersion> {
    // Not `to_regclass`: a session that has just waited for another's migration would answer from its cache.
    let made = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'graceful_schema' AND pg_table_is_visible(oid))",
    );
    if !made.fetch_one(&mut *connection).await? {
        return Ok(SchemaVersion { version: 0, least: 0 });
    }
    let row = sqlx::query("SELECT version, least FROM graceful_schema").fetch_one(connection).await?;
    Ok(SchemaVersion { version: row.try_get(0)?, least: row.try_get(1)? })
}

/// Who waits for a lock on a table is waited for by all who come after: so whoever asks for one gives up soon, and is opened again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'";

/// Leases end while their owners wait for the tables. So nobody probes either meanwhile: for all that is a break in the pulse, after which
/// each has the time of a lease to renew before anyone is judged.
const PULSE: &str = "LOCK TABLE graceful_pulse IN SHARE ROW EXCLUSIVE MODE";

/// All in one transaction: whoever comes second finds it done.
async fn migrate(connection: &mut PgConnection) -> sqlx::Result<SchemaVersion> {
    let mut transaction = connection.begin().await?;
    // Waiting for another pod's migration, or building an index, may take longer than a statement should.
    sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    let before = schema_version(&mut transaction).await?;
    let version = usize::try_from(before.version).unwrap_or(0);
    let missing = MIGRATIONS.get(version..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(before);
    }
    sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *transaction).await?;
    if version > 0 {
        sqlx::raw_sql(PULSE).execute(&mut *transaction).await?;
    }
    for migration in missing {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
    }
    if version == 0 {
        // Short and random, for it is in every event's token.
        let stream = Uuid::new_v4().simple().to_string()[..12].to_owned();
        sqlx::query("INSERT INTO graceful_log (stream, head) VALUES ($1, 0)")
            .bind(stream)
            .execute(&mut *transaction)
            .await?;
    }
    let known = MIGRATIONS.len() as i64;
    let now = format!("UPDATE graceful_schema SET version = {known}, least = greatest(least, {LEAST})");
    sqlx::raw_sql(AssertSqlSafe(now)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(SchemaVersion { version: known, least: before.least.max(LEAST) })
}
