-- What differs, after an id: what is there now, and what is over where that is asked for.
SELECT
    d.id, d.node, d.instance, d.kind, d.detail, d.ledger::text AS ledger, d.hypervisor::text AS hypervisor,
    d.first_seen, d.last_seen, d.resolved_at
FROM nodeledger.drift_view AS d
WHERE
    d.id > :after
    AND (:node::text IS NULL OR d.node = :node)
    AND (:kind::text IS NULL OR d.kind = :kind)
    AND (:instance::uuid IS NULL OR d.instance = :instance)
    AND (d.resolved_at IS NULL OR :resolved)
ORDER BY d.id
LIMIT :limit;
