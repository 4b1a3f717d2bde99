-- Batches whose outcomes may not all be published, in the order in which they
-- were committed. Asking leaves them to the caller until they are as old again.
WITH due AS (
    SELECT o.id, o.at
    FROM nodeledger.outbox AS o
    WHERE o.at <= now() - make_interval(secs => $1::float8)
    ORDER BY o.at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
placed AS (
    SELECT d.id, row_number() OVER (ORDER BY d.at, d.id) AS place FROM due AS d
),
mine AS (
    UPDATE nodeledger.outbox AS o
    SET at = now() + p.place * interval '1 microsecond'  -- their order, should they be asked for again
    FROM placed AS p
    WHERE o.id = p.id
    RETURNING o.id, o.commands, p.place
)
SELECT
    m.id AS outbox, c.id AS command, c.fingerprint, c.kind, c.status, c.node, c.instance, c.received_at, c.codes,
    c.reply_to, c.correlation_id, c.traceparent, c.outcome
FROM mine AS m
LEFT JOIN LATERAL unnest(m.commands) WITH ORDINALITY AS u (id, place) ON true
LEFT JOIN nodeledger.command AS c ON c.id = u.id
ORDER BY m.place, u.place
