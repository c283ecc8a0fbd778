-- The first format. Times are seconds since the epoch, UTC; JSON columns hold objects.
CREATE TABLE executions (
    execution_id  TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    kind          TEXT NOT NULL,
    created_at    REAL NOT NULL,
    status        TEXT NOT NULL,
    due           REAL,
    last_sequence INTEGER NOT NULL DEFAULT 0,
    details       TEXT NOT NULL
);
CREATE INDEX executions_due ON executions (due) WHERE due IS NOT NULL;

CREATE TABLE events (
    execution_id TEXT NOT NULL REFERENCES executions ON DELETE CASCADE,
    sequence     INTEGER NOT NULL,
    operation_id TEXT NOT NULL,
    kind         TEXT NOT NULL,
    type         TEXT NOT NULL,
    sub_type     TEXT,
    name         TEXT,
    parent_id    TEXT,
    at           REAL NOT NULL,
    attempt      INTEGER NOT NULL,
    payload      BLOB,
    error        TEXT,
    due          REAL,
    details      TEXT,
    mac          BLOB,
    PRIMARY KEY (execution_id, sequence)
) WITHOUT ROWID;
CREATE INDEX events_operation ON events (operation_id);

-- Which blobs an event names: what garbage collection must keep.
CREATE TABLE blob_refs (
    execution_id TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    address      TEXT NOT NULL,
    PRIMARY KEY (execution_id, sequence, address),
    FOREIGN KEY (execution_id, sequence) REFERENCES events ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE leases (
    execution_id TEXT PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
    token        INTEGER NOT NULL,
    owner        TEXT,
    host         TEXT,
    pid          INTEGER,
    started      TEXT,
    expires_at   REAL
) WITHOUT ROWID;
