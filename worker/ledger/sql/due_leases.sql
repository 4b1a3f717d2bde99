-- The first leases that ran out, after one of them in the order of their ends. That
-- of a claim whose instance moves waits for the end of the move.
SELECT n.name AS node, a.instance, a.lease_expires_at AS expired_at
FROM nodeledger.allocation AS a
JOIN nodeledger.node AS n ON n.id = a.node_id
WHERE
    a.lease_expires_at <= now()
    AND a.role <> 'move_source'
    AND a.lease_expires_at >= :expired_at::timestamptz
    AND (a.lease_expires_at, a.instance, n.name) > (:expired_at::timestamptz, :instance::uuid, :node::text COLLATE "C")
ORDER BY a.lease_expires_at, a.instance, n.name
LIMIT :limit
