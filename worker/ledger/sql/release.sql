-- What a batch gives back, before anything else is taken: a statement of its own,
-- since the parts of one run in no order of their own, and a CPU that goes from one
-- instance to the next could be taken before it is given back, and refused.
WITH allocations AS (
    DELETE FROM nodeledger.allocation AS a
    USING unnest(:allocations.instance::uuid[], :allocations.node_id::bigint[], :allocations.role::text[])
        AS x (instance, node_id, role)
    WHERE (a.instance, a.node_id, a.role) = (x.instance, x.node_id, x.role)
),
cpus AS (
    DELETE FROM nodeledger.pinned_cpu AS c
    USING unnest(:cpus.node_id::bigint[], :cpus.cpu::integer[], :cpus.instance::uuid[])
        AS x (node_id, cpu, instance)
    WHERE (c.node_id, c.cpu, c.instance) = (x.node_id, x.cpu, x.instance)
)
DELETE FROM nodeledger.held_device AS d
USING unnest(:devices.node_id::bigint[], :devices.address::text[], :devices.instance::uuid[])
    AS x (node_id, address, instance)
WHERE (d.node_id, d.address, d.instance) = (x.node_id, x.address, x.instance)
