-- The whole state of nodes whose generation is not the remembered one.
SELECT
    n.id,
    n.name,
    n.generation,
    n.stamp,
    n.counters,
    n.used,
    n.failed_builds,
    n.parked,
    n.reachable,
    n.observed_at,
    p.hypervisor,
    p.host_uuid,
    p.labels::text AS labels,
    p.policy::text AS policy,
    p.inventory::text AS inventory,
    (
        SELECT json_object_agg(c.cpu, c.instance)::text
        FROM nodeledger.pinned_cpu AS c
        WHERE c.node_id = n.id
    ) AS pinned,
    (
        SELECT json_object_agg(d.address, d.instance)::text
        FROM nodeledger.held_device AS d
        WHERE d.node_id = n.id
    ) AS held
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id
WHERE n.id = ANY ($1::bigint[])
