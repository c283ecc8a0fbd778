-- name: create_execution
-- An execution that exists stays as it is.
INSERT INTO executions (execution_id, name, kind, queue, created_at, status, details)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING
RETURNING execution_id, name, kind, created_at, status, due, details;

-- name: find_execution
SELECT execution_id, name, kind, created_at, status, due, details FROM executions WHERE name = %s;

-- name: get_execution
SELECT execution_id, name, kind, created_at, status, due, details FROM executions WHERE execution_id = %s;

-- name: list_executions
SELECT execution_id, name, kind, created_at, status, due, details FROM executions ORDER BY created_at, number;

-- name: due_executions
-- Unfinished ones whose time has come.
SELECT execution_id, name, kind, created_at, status, due, details FROM executions
WHERE due <= %s AND status IN ('STARTED', 'PENDING', 'READY', 'RETRY') ORDER BY due;

-- name: claim_due
-- The earliest due ones that nobody holds; those that another worker is just taking are passed over, not waited for.
UPDATE executions SET lease_token = lease_token + 1, lease_owner = %(owner)s, lease_host = %(host)s,
    lease_pid = %(pid)s, lease_started = %(started)s, lease_claim = %(claim)s,
    lease_expires = clock_timestamp() + make_interval(secs => %(ttl)s)
WHERE execution_id IN (
    SELECT execution_id FROM executions
    WHERE due <= %(now)s AND status IN ('STARTED', 'PENDING', 'READY', 'RETRY') AND kind = %(kind)s
      AND execution_id <> ALL (%(without)s)
      AND (%(queue)s::text IS NULL OR queue = %(queue)s) AND (queue IS NULL OR queue <> ALL (%(other_queues)s))
      AND (lease_owner IS NULL OR lease_expires < clock_timestamp() OR lease_claim = %(claim)s)
    ORDER BY due LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)
RETURNING execution_id, name, kind, created_at, status, due, details, lease_token;

-- name: lock_limits
-- Of two workers with limits one counts and claims, then the other.
SELECT pg_advisory_xact_lock(hashtext(%s), 1);

-- name: count_held
SELECT queue, count(*) FROM executions
WHERE queue = ANY (%s) AND lease_owner IS NOT NULL AND lease_expires >= clock_timestamp() AND lease_claim <> %s
GROUP BY queue;

-- name: neighbours
-- Holders on this host of executions that are due: one that has died need not be waited for.
-- All that are held are looked at first, which are few, and not all that are due.
WITH held AS MATERIALIZED (
    SELECT * FROM executions WHERE lease_owner IS NOT NULL AND lease_host = %s)
SELECT execution_id, lease_pid, lease_started, lease_claim FROM held
WHERE due <= %s AND status IN ('STARTED', 'PENDING', 'READY', 'RETRY') AND kind = %s
  AND lease_expires >= clock_timestamp();

-- name: evict
-- A holder that is known to be dead; not one that has come since.
UPDATE executions SET lease_owner = NULL, lease_expires = NULL WHERE execution_id = %s AND lease_claim = %s;

-- name: lock_executions
-- In one order everywhere, so that two transactions never wait for each other.
SELECT execution_id, last_sequence, lease_token FROM executions
WHERE execution_id = ANY (%s) ORDER BY execution_id FOR NO KEY UPDATE;

-- name: advance
UPDATE executions SET last_sequence = %(last)s, status = coalesce(%(status)s, status),
    due = CASE WHEN %(sets_due)s THEN %(due)s ELSE due END
WHERE execution_id = %(execution_id)s;

-- name: insert_event
INSERT INTO events (execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt,
                    payload, error, due, details, mac, token)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: token_at
SELECT token FROM events WHERE execution_id = %s AND sequence = %s;

-- name: insert_blob_ref
INSERT INTO blob_refs (execution_id, sequence, address) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING;

-- name: spare_named
-- A collection that has condemned one of these, and not removed it yet, finds that it is named after all.
UPDATE blobs SET condemned = NULL, touched = clock_timestamp() WHERE address = ANY (%s) AND condemned IS NOT NULL;

-- name: read_events
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events WHERE execution_id = %s AND sequence > %s ORDER BY sequence;

-- name: read_operation
-- The index `events_operation` has the first half of a hash: enough to find few, which are then compared whole.
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events
WHERE execution_id = %s AND left(operation_id, 16) = left(%s, 16) AND operation_id = %s ORDER BY sequence;

-- name: find_cell
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events WHERE operation_id = %s AND sub_type = 'Cell' ORDER BY execution_id, sequence;

-- name: read_some
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events WHERE execution_id = %s AND sequence = ANY (%s);

-- name: sign_event
UPDATE events SET mac = %s WHERE execution_id = %s AND sequence = %s;

-- name: prune_events
-- Their numbers are not given again: `last_sequence` stays.
DELETE FROM events WHERE execution_id = %s AND sequence = ANY (%s);

-- name: update_execution
UPDATE executions SET name = coalesce(%(name)s, name), status = coalesce(%(status)s, status),
    due = CASE WHEN %(sets_due)s THEN %(due)s ELSE due END, details = coalesce(%(details)s, details)
WHERE execution_id = %(execution_id)s;

-- name: forget_execution_events
DELETE FROM events WHERE execution_id = %s;

-- name: forget_operation_events
DELETE FROM events WHERE execution_id = %s AND left(operation_id, 16) = left(%s, 16) AND operation_id = %s;

-- name: forget_execution
DELETE FROM executions WHERE execution_id = %s;

-- name: acquire
-- A lease that was released, that has run out by the server's clock, or that this very request was given before its
-- answer was lost.
UPDATE executions SET lease_token = lease_token + 1, lease_owner = %(owner)s, lease_host = %(host)s,
    lease_pid = %(pid)s, lease_started = %(started)s, lease_claim = %(claim)s,
    lease_expires = clock_timestamp() + make_interval(secs => %(ttl)s)
WHERE execution_id = %(execution_id)s
  AND (lease_owner IS NULL OR lease_expires < clock_timestamp() OR lease_claim = %(claim)s)
RETURNING lease_token;

-- name: holder
SELECT lease_owner, lease_host, lease_pid, lease_started, lease_claim FROM executions WHERE execution_id = %s;

-- name: renew
-- A transaction of one statement that does not wait for the disk: a renewal that is lost lets a lease run out earlier.
WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS value)
UPDATE executions SET lease_expires = clock_timestamp() + make_interval(secs => %s) FROM soon
WHERE execution_id = %s AND lease_token = %s AND lease_owner IS NOT NULL AND soon.value = 'off' RETURNING 1;

-- name: release
-- In the same way: a lease whose release is lost runs out.
WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS value)
UPDATE executions SET lease_owner = NULL, lease_host = NULL, lease_pid = NULL, lease_started = NULL,
    lease_expires = NULL, lease_claim = NULL FROM soon
WHERE execution_id = %s AND lease_token = %s AND soon.value = 'off';

-- name: blob_refs
SELECT DISTINCT address FROM blob_refs;

-- name: nbytes
-- Bytes on the server's disk of everything in the store.
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r';

-- name: claim_start
INSERT INTO started (execution, name, facts, claim) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING;

-- name: start_claim
SELECT claim FROM started WHERE execution = %s AND name = %s;

-- name: read_start
SELECT execution, name, facts FROM started WHERE execution = %s AND name = %s;

-- name: starts_called
SELECT execution, name, facts FROM started WHERE name = %s ORDER BY execution;

-- name: starts_of
SELECT execution, name, facts FROM started WHERE execution = %s ORDER BY name;

-- name: clear_start
DELETE FROM started WHERE execution = %s AND name = %s;

-- name: touch_blob
-- Whoever finds a blob in place will name it soon: it is young again, and no longer condemned.
WITH younger AS (
    UPDATE blobs SET touched = clock_timestamp(), condemned = NULL
    WHERE address = %(address)s AND (condemned IS NOT NULL OR touched < clock_timestamp() - interval '10 minutes')
    RETURNING size)
SELECT size FROM blobs WHERE address = %(address)s;

-- name: blob_row
SELECT size, object FROM blobs WHERE address = %s;

-- name: add_blob
INSERT INTO blobs (address, size, object) VALUES (%s, %s, %s)
ON CONFLICT (address) DO UPDATE SET touched = clock_timestamp(), condemned = NULL, size = excluded.size,
    object = excluded.object;

-- name: lock_blob
SELECT object FROM blobs WHERE address = %s FOR NO KEY UPDATE;

-- name: clear_chunks
DELETE FROM blob_chunks WHERE address = %s;

-- name: insert_chunk
INSERT INTO blob_chunks (address, number, data) VALUES (%s, %s, %s);

-- name: copy_chunks
COPY blob_chunks (address, number, data) FROM STDIN (FORMAT binary);

-- name: read_chunks
SELECT data FROM blob_chunks WHERE address = %s AND number >= %s AND number < %s ORDER BY number;

-- name: list_blobs
SELECT address FROM blobs WHERE condemned IS NULL ORDER BY address;

-- name: condemn_blobs
-- Those that no row names and that nobody has found in place for an hour: their writer has committed its row by then.
UPDATE blobs SET condemned = clock_timestamp()
WHERE address = ANY (%s) AND condemned IS NULL AND touched < clock_timestamp() - make_interval(secs => %s);

-- name: condemned_blobs
SELECT address, extract(epoch FROM condemned)::double precision FROM blobs WHERE condemned IS NOT NULL;

-- name: spare_blob
UPDATE blobs SET condemned = NULL WHERE address = %s;

-- name: purge_blob
-- Only while it is condemned: a writer that has found it since has made it young again.
DELETE FROM blobs WHERE address = %s AND condemned IS NOT NULL
  AND NOT EXISTS (SELECT FROM blob_refs WHERE blob_refs.address = blobs.address)
RETURNING size, object;

-- name: delete_blob
DELETE FROM blobs WHERE address = %s RETURNING size, object;

-- name: hold
INSERT INTO held (session, address, until)
SELECT %s, unnest(%s::text[]), clock_timestamp() + make_interval(secs => %s) ON CONFLICT DO NOTHING;

-- name: held
SELECT DISTINCT address FROM held WHERE until > clock_timestamp();

-- name: let_go
DELETE FROM held WHERE session = %s OR until < clock_timestamp();
