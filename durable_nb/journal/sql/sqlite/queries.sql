-- name: create_execution
-- An execution that exists stays as it is.
INSERT INTO executions (execution_id, name, kind, created_at, status, details)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING;

-- name: find_execution
SELECT execution_id, name, kind, created_at, status, due, details FROM executions WHERE name = ?;

-- name: get_execution
SELECT execution_id, name, kind, created_at, status, due, details FROM executions WHERE execution_id = ?;

-- name: list_executions
SELECT execution_id, name, kind, created_at, status, due, details FROM executions ORDER BY created_at, rowid;

-- name: due_executions
-- Unfinished ones whose time has come.
SELECT execution_id, name, kind, created_at, status, due, details FROM executions
WHERE due IS NOT NULL AND due <= ? ORDER BY due;

-- name: unheld_due
SELECT e.execution_id, name, kind, created_at, status, due, details FROM executions AS e
LEFT JOIN leases ON leases.execution_id = e.execution_id
WHERE due IS NOT NULL AND due <= ? AND kind = ? AND owner IS NULL
  AND status IN ('STARTED', 'PENDING', 'READY', 'RETRY') ORDER BY due LIMIT ?;

-- name: last_sequence
SELECT last_sequence FROM executions WHERE execution_id = ?;

-- name: advance_sequence
-- Nothing comes back when there is no such execution, its last number is not the one that was expected, or another owner
-- has taken the lease: one question, since every step asks it.
UPDATE executions SET last_sequence = last_sequence + :count
WHERE execution_id = :execution AND (:after IS NULL OR last_sequence = :after)
  AND (:token IS NULL OR :token = (SELECT token FROM leases WHERE leases.execution_id = :execution))
RETURNING last_sequence;

-- name: insert_event
INSERT INTO events (execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt,
                    payload, error, due, details, mac)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: insert_blob_ref
INSERT OR IGNORE INTO blob_refs (execution_id, sequence, address) VALUES (?, ?, ?);

-- name: read_events
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events WHERE execution_id = ? AND sequence > ? ORDER BY sequence;

-- name: read_operation
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events WHERE operation_id = ? AND execution_id = ? ORDER BY sequence;

-- name: find_cell
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events WHERE operation_id = ? AND sub_type = 'Cell' ORDER BY execution_id, sequence;

-- name: read_event
SELECT execution_id, sequence, operation_id, kind, type, sub_type, name, parent_id, at, attempt, payload, error, due,
       details, mac FROM events WHERE execution_id = ? AND sequence = ?;

-- name: sign_event
UPDATE events SET mac = ? WHERE execution_id = ? AND sequence = ?;

-- name: prune_event
-- Its number is not given again: `last_sequence` stays.
DELETE FROM events WHERE execution_id = ? AND sequence = ?;

-- name: set_name
UPDATE executions SET name = ? WHERE execution_id = ?;

-- name: set_status
UPDATE executions SET status = ? WHERE execution_id = ?;

-- name: set_due
UPDATE executions SET due = ? WHERE execution_id = ?;

-- name: set_details
UPDATE executions SET details = ? WHERE execution_id = ?;

-- name: forget_execution_events
DELETE FROM events WHERE execution_id = ?;

-- name: forget_operation_events
DELETE FROM events WHERE execution_id = ? AND operation_id = ?;

-- name: forget_execution
DELETE FROM executions WHERE execution_id = ?;

-- name: read_lease
SELECT token, owner, host, pid, started, expires_at FROM leases WHERE execution_id = ?;

-- name: write_lease
-- The token survives a release, so it only ever grows.
INSERT INTO leases (execution_id, token, owner, host, pid, started, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (execution_id) DO UPDATE SET token = excluded.token, owner = excluded.owner, host = excluded.host,
    pid = excluded.pid, started = excluded.started, expires_at = excluded.expires_at;

-- name: renew_lease
UPDATE leases SET expires_at = ? WHERE execution_id = ? AND token = ? AND owner IS NOT NULL;

-- name: release_lease
UPDATE leases SET owner = NULL, host = NULL, pid = NULL, started = NULL, expires_at = NULL
WHERE execution_id = ? AND token = ?;

-- name: lease_token
SELECT token FROM leases WHERE execution_id = ?;

-- name: blob_refs
SELECT DISTINCT address FROM blob_refs;
