-- The first format. Times of events are seconds since the epoch, UTC, by the clock of who wrote them; leases, holds and
-- the ages of blobs go by the clock of the server. JSON columns hold objects.
CREATE TABLE executions (
    number         bigint GENERATED ALWAYS AS IDENTITY,
    execution_id   text PRIMARY KEY,
    name           text NOT NULL UNIQUE,
    kind           text NOT NULL,
    -- What limits of workers are about: the handler of an execution.
    queue          text,
    created_at     double precision NOT NULL,
    status         text NOT NULL,
    due            double precision,
    last_sequence  bigint NOT NULL DEFAULT 0,
    details        text NOT NULL,
    -- The lease: in the same row, since whoever writes to an execution locks it anyway. The token only ever grows.
    lease_token    bigint NOT NULL DEFAULT 0,
    lease_owner    text,
    lease_host     text,
    lease_pid      bigint,
    lease_started  text,
    lease_expires  timestamptz,
    -- Drawn by who asked for the lease: after a cut connection it tells whether the answer that was lost was a yes.
    lease_claim    text
) WITH (fillfactor = 70);

-- What is over is no part of it: the way to what is due stays as short with a million finished executions.
CREATE INDEX executions_due ON executions (due)
    WHERE due IS NOT NULL AND status IN ('STARTED', 'PENDING', 'READY', 'RETRY');

-- Who is at work just now: as long as there are workers, not executions.
CREATE INDEX executions_held ON executions (queue) WHERE lease_owner IS NOT NULL;

CREATE TABLE events (
    execution_id text NOT NULL,
    sequence     bigint NOT NULL,
    operation_id text NOT NULL,
    kind         text NOT NULL,
    type         text NOT NULL,
    sub_type     text,
    name         text,
    parent_id    text,
    at           double precision NOT NULL,
    attempt      bigint NOT NULL,
    payload      bytea,
    error        text,
    due          double precision,
    details      text,
    mac          bytea,
    -- On the first event of each append: after a cut connection it tells whether that append was committed.
    token        uuid,
    PRIMARY KEY (execution_id, sequence)
);
CREATE INDEX events_operation ON events (operation_id, execution_id, sequence);

-- Which blobs an event names: what garbage collection must keep.
CREATE TABLE blob_refs (
    execution_id text NOT NULL,
    sequence     bigint NOT NULL,
    address      text NOT NULL,
    PRIMARY KEY (execution_id, sequence, address),
    FOREIGN KEY (execution_id, sequence) REFERENCES events ON DELETE CASCADE
);
CREATE INDEX blob_refs_address ON blob_refs (address);

-- Every blob has its row here; its bytes are in `blob_chunks`, or in an object store under the name `object`, which is a
-- new one at each write: a late removal never meets the object of a newer writer.
CREATE TABLE blobs (
    address    text PRIMARY KEY,
    size       bigint NOT NULL,
    object     text,
    touched    timestamptz NOT NULL DEFAULT clock_timestamp(),
    condemned  timestamptz
);
CREATE INDEX blobs_condemned ON blobs (condemned) WHERE condemned IS NOT NULL;

CREATE TABLE blob_chunks (
    address text NOT NULL REFERENCES blobs ON DELETE CASCADE,
    number  integer NOT NULL,
    data    bytea NOT NULL,
    PRIMARY KEY (address, number)
);
-- Numbers and pickles gain little from the server's compression, and it is slower than the disk.
ALTER TABLE blob_chunks ALTER COLUMN data SET STORAGE EXTERNAL;

-- Blobs that a living session has still to read.
CREATE TABLE held (
    session text NOT NULL,
    address text NOT NULL,
    until   timestamptz NOT NULL,
    PRIMARY KEY (session, address)
);

-- Proof that an at-most-once body was started. Apart from the rest, so that it can be kept when the rest is put back
-- from an older copy.
CREATE TABLE started (
    execution text NOT NULL,
    name      text NOT NULL,
    facts     text NOT NULL,
    claim     text NOT NULL,
    PRIMARY KEY (execution, name)
);
CREATE INDEX started_name ON started (name);
