-- What one execution writes lies together in each index, and what is written at one time as well, since ids of executions
-- begin with the time. The index by operation id that was here was written in as many places as there are steps: after
-- each checkpoint the server's log had a whole page for each of them.
DROP INDEX events_operation;

-- Ids of operations are hashes of 32 or 64 digits: 16 tell the operations of one execution apart, in half the space.
CREATE INDEX events_operation ON events (execution_id, left(operation_id, 16));

-- Only cells are looked for in all executions.
CREATE INDEX events_cell ON events (operation_id, execution_id, sequence) WHERE sub_type = 'Cell';
