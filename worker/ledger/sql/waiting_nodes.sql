-- Nodes with commands that wait for their hypervisor: how many, for how long, why the first, and when it is asked next.
SELECT
    p.node,
    count(*) AS commands,
    min(p.parked_at) AS since,
    extract(epoch FROM now() - min(p.parked_at))::bigint AS waited_seconds,
    max(b.next_at) AS asked_next,
    (array_agg(p.detail ORDER BY p.seq))[1] AS detail
FROM nodeledger.parked_command AS p
LEFT JOIN nodeledger.probe AS b ON b.node = p.node
WHERE $1::text[] IS NULL OR p.node = ANY ($1)
GROUP BY p.node
ORDER BY p.node;
