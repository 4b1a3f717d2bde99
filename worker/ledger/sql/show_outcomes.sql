-- Outcomes of a command, a node, an instance or a status; the newest first.
SELECT o.command, o.kind, o.status, o.node, o.instance, o.received_at, o.at, o.codes, o.outcome
FROM nodeledger.outcome_view AS o
WHERE
    (:command::uuid IS NULL OR o.command = :command)
    AND (:node::text IS NULL OR o.node = :node)
    AND (:instance::uuid IS NULL OR o.instance = :instance)
    AND (:status::text IS NULL OR o.status = :status)
ORDER BY o.at DESC, o.command
LIMIT :limit;
