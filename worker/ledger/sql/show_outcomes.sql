-- Outcomes of a command, a node, an instance or a status; the newest first.
SELECT o.command, o.kind, o.status, o.node, o.instance, o.received_at, o.at, o.codes, o.outcome
FROM nodeledger.outcome_view AS o
WHERE
    ($1::uuid IS NULL OR o.command = $1)
    AND ($2::text IS NULL OR o.node = $2)
    AND ($3::uuid IS NULL OR o.instance = $3)
    AND ($4::text IS NULL OR o.status = $4)
ORDER BY o.at DESC, o.command
LIMIT $5;
