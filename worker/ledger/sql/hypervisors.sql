-- Every node that has a hypervisor, and how often it is audited if its policy says so.
SELECT n.name AS node, p.hypervisor AS address, (p.policy ->> 'audit_interval_seconds')::integer AS interval
FROM nodeledger.node_profile AS p
JOIN nodeledger.node AS n ON n.id = p.node_id
WHERE p.hypervisor IS NOT NULL
