-- Of these batches only the outcomes of these commands are not published yet. Nobody else sweeps them for a while.
UPDATE nodeledger.outbox AS o
SET
    commands = ARRAY(SELECT m.command FROM unnest($1::uuid[], $2::uuid[]) AS m (outbox, command) WHERE m.outbox = o.id),
    at = now() + make_interval(secs => $3::float8)
WHERE o.id = ANY ($1::uuid[])
