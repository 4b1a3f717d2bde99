-- The first ($1) leases that ran out, after one ($2, $3, $4) in the order of their ends.
SELECT n.name AS node, a.instance, a.lease_expires_at AS expired_at
FROM nodeledger.allocation AS a
JOIN nodeledger.node AS n ON n.id = a.node_id
WHERE
    a.lease_expires_at <= now()
    AND a.lease_expires_at >= $2::timestamptz
    AND (a.lease_expires_at, a.instance, n.name) > ($2::timestamptz, $3::uuid, $4::text COLLATE "C")
ORDER BY a.lease_expires_at, a.instance, n.name
LIMIT $1
