-- Every resource summed over all nodes.
SELECT
    u.resource,
    sum(u.total)::bigint AS total,
    sum(u.reserved)::bigint AS reserved,
    sum(u.capacity)::bigint AS capacity,
    sum(u.used)::bigint AS used,
    sum(u.free)::bigint AS free
FROM nodeledger.node_usage AS u
GROUP BY u.resource
ORDER BY u.resource;
