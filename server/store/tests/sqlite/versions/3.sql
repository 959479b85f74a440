-- The tables of version 3. A release is never changed, and nor is this.
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE tasks (
    id BLOB PRIMARY KEY,
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    granted INTEGER NOT NULL,
    cancel INTEGER NOT NULL,
    created INTEGER NOT NULL,
    due INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER,
    keep INTEGER NOT NULL,
    forget INTEGER,
    timeout INTEGER,
    kind TEXT NOT NULL,
    client TEXT,
    trace TEXT,
    key TEXT,
    fingerprint BLOB,
    progress TEXT,
    error TEXT,
    output TEXT,
    input TEXT,
    interrupted INTEGER NOT NULL DEFAULT 0,
    keep_dead INTEGER,
    pod TEXT
) WITHOUT ROWID, STRICT;
CREATE TABLE inputs (id BLOB PRIMARY KEY, input TEXT NOT NULL) WITHOUT ROWID, STRICT;
CREATE INDEX line ON tasks (state, priority, due, id) WHERE state < 2;
CREATE INDEX letters ON tasks (id, state) WHERE state > 2;
CREATE INDEX suspects ON tasks (due, id) WHERE state = 0 AND interrupted > 0;
CREATE INDEX clients ON tasks (client, id) WHERE client IS NOT NULL;
CREATE INDEX past ON tasks (forget) WHERE forget IS NOT NULL;
CREATE UNIQUE INDEX keys ON tasks (key) WHERE key IS NOT NULL;
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    task BLOB NOT NULL,
    state INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    client TEXT,
    error TEXT
) STRICT;
CREATE TABLE attempts (
    task BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    pod TEXT,
    error TEXT,
    PRIMARY KEY (task, attempt)
) WITHOUT ROWID, STRICT;

-- What the last of its processes left.
INSERT INTO meta VALUES ('stream', '0123456789ab');
INSERT INTO tasks (id, state, priority, attempt, max_attempts, granted, cancel, created, due, keep, kind, input)
VALUES (x'00000000000070008000000000000001', 0, 0, 0, 3, 3, 0, 1764000000000, 1764000000000, 3600000, 'sleep', '{}');
INSERT INTO tasks (id, state, priority, attempt, max_attempts, granted, cancel, created, due, started, keep, kind)
VALUES (x'00000000000070008000000000000002', 1, 5, 1, 3, 3, 0, 1764000000000, 1764000000000, 1764000001000, 3600000, 'sleep');
INSERT INTO inputs VALUES (x'00000000000070008000000000000002', '{"long": "input"}');
INSERT INTO tasks (id, state, priority, attempt, max_attempts, granted, cancel, created, due, started, ended, keep, forget, kind,
    key, fingerprint, error, input)
VALUES (x'00000000000070008000000000000003', 3, 0, 3, 3, 3, 0, 1764000000000, 1764000000000, 1764000001000, 1764000002000, 3600000,
    4102444800000, 'sleep', 'a-key', x'00', 'no luck', '{}');
INSERT INTO events (number, at, task, state, attempt, kind, error)
VALUES (7, 1764000002000, x'00000000000070008000000000000003', 3, 3, 'sleep', 'no luck');
PRAGMA application_id = 1735549798;
PRAGMA user_version = 3;
COMMIT;
