-- What is known to differ on nodes now, in the order in which it was found.
SELECT n.name AS node, d.id, d.instance, d.kind, d.detail, d.ledger::text AS ledger, d.hypervisor::text AS hypervisor
FROM nodeledger.node AS n
JOIN nodeledger.drift AS d ON d.node_id = n.id
WHERE n.name = ANY ($1::text[]) AND d.resolved_at IS NULL
ORDER BY d.id
