-- What is known to differ on nodes now, in the order in which it was found. OFFSET 0 has each node looked up by
-- itself, also by plans that were made while there was nothing.
SELECT n.name AS node, d.id, d.instance, d.kind, d.detail, d.ledger::text AS ledger, d.hypervisor::text AS hypervisor
FROM nodeledger.node AS n
CROSS JOIN LATERAL (
    SELECT x.* FROM nodeledger.drift AS x WHERE x.node_id = n.id AND x.resolved_at IS NULL OFFSET 0
) AS d
WHERE n.name = ANY ($1::text[])
ORDER BY d.id
