-- How nodes with a hypervisor stand: version, address, whether it answered last, and how much is parked, waiting or not.
SELECT
    n.name AS node, n.generation, p.hypervisor AS address, n.reachable,
    (SELECT count(*) FROM nodeledger.parked_command AS c WHERE c.node = n.name)::integer AS parked
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id
WHERE n.name = ANY ($1::text[]) AND p.hypervisor IS NOT NULL
