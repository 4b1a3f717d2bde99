-- What a batch gives back, before anything else is taken.
WITH allocations AS (
    DELETE FROM nodeledger.allocation AS a
    USING unnest($1::uuid[], $2::bigint[], $3::text[]) AS x (instance, node_id, role)
    WHERE (a.instance, a.node_id, a.role) = (x.instance, x.node_id, x.role)
),
cpus AS (
    DELETE FROM nodeledger.pinned_cpu AS c
    USING unnest($4::bigint[], $5::integer[], $6::uuid[]) AS x (node_id, cpu, instance)
    WHERE (c.node_id, c.cpu, c.instance) = (x.node_id, x.cpu, x.instance)
)
DELETE FROM nodeledger.held_device AS d
USING unnest($7::bigint[], $8::text[], $9::uuid[]) AS x (node_id, address, instance)
WHERE (d.node_id, d.address, d.instance) = (x.node_id, x.address, x.instance)
