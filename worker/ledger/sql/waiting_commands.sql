-- Commands that wait for a hypervisor, in the order of their nodes' lanes, after a position.
SELECT
    p.seq, p.node, p.command, c.kind, p.blocking, p.detail, p.received_at, p.parked_at,
    extract(epoch FROM now() - p.parked_at)::bigint AS waited_seconds
FROM nodeledger.parked_command AS p
LEFT JOIN nodeledger.command AS c ON c.id = p.command
WHERE
    p.seq > :after
    AND (:nodes::text[] IS NULL OR p.node = ANY (:nodes))
    AND (:commands::uuid[] IS NULL OR p.command = ANY (:commands))
ORDER BY p.seq
LIMIT :limit;
