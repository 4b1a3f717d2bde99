-- Batches whose outcomes may not all be published. Asking leaves them to the
-- caller until they are as old again.
WITH due AS (
    SELECT o.id
    FROM nodeledger.outbox AS o
    WHERE o.at <= now() - make_interval(secs => $1::float8)
    ORDER BY o.at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
mine AS (
    UPDATE nodeledger.outbox AS o SET at = now() FROM due WHERE o.id = due.id RETURNING o.id, o.commands
)
SELECT
    m.id AS outbox, c.id AS command, c.fingerprint, c.kind, c.status, c.node, c.instance, c.received_at, c.codes,
    c.reply_to, c.correlation_id, c.traceparent, c.outcome
FROM mine AS m
LEFT JOIN nodeledger.command AS c ON c.id = ANY (m.commands)
ORDER BY m.id, c.at
