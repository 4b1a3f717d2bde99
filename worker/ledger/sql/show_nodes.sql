-- Nodes after a name, with their usage as one document each.
SELECT
    s.node, s.hypervisor, s.enabled, s.reachable, s.generation, s.observed_at, s.instances, s.failed_builds, s.labels,
    (
        SELECT coalesce(
            json_object_agg(
                u.resource,
                json_build_object(
                    'total', u.total, 'reserved', u.reserved, 'capacity', u.capacity, 'used', u.used, 'free', u.free
                )
                ORDER BY u.resource
            ),
            '{}'
        )::text
        FROM nodeledger.node_usage AS u
        WHERE u.node = s.node
    ) AS usage
FROM nodeledger.node_status AS s
WHERE s.node > $1 AND ($2::text[] IS NULL OR s.node = ANY ($2))
ORDER BY s.node
LIMIT $3;
