-- Leases that ran out.
SELECT n.name AS node, a.instance, min(a.lease_expires_at) AS expired_at
FROM nodeledger.allocation AS a
JOIN nodeledger.node AS n ON n.id = a.node_id
WHERE a.lease_expires_at <= now()
GROUP BY n.name, a.instance
ORDER BY expired_at
LIMIT $1
