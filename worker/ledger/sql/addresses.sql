-- The hypervisors of nodes.
SELECT n.name AS node, p.hypervisor
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id
WHERE n.name = ANY ($1::text[]) AND p.hypervisor IS NOT NULL
