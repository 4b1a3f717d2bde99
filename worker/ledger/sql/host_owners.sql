-- Which nodes the machines of these UUIDs are.
SELECT p.host_uuid, n.name
FROM nodeledger.node_profile AS p
JOIN nodeledger.node AS n ON n.id = p.node_id
WHERE p.host_uuid = ANY ($1::uuid[])
