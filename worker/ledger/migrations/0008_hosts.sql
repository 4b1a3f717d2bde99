-- The UUID of the machine behind a node (one machine is one node, whatever names and addresses it has), and what
-- its owner says of it: labels by name. The constraint is held at the end of a batch, within which a machine may go
-- from one node to another.
ALTER TABLE nodeledger.node_profile
ADD COLUMN host_uuid uuid,
ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
ADD CONSTRAINT a_host_is_one_node UNIQUE (host_uuid) DEFERRABLE INITIALLY DEFERRED;

CREATE OR REPLACE VIEW nodeledger.node_detail_view AS
SELECT
    n.name AS node,
    p.policy,
    p.inventory,
    p.capacity,
    (
        SELECT coalesce(jsonb_object_agg(x.counter, x.amount), '{}')
        FROM unnest(n.counters, n.used) AS x (counter, amount)
    ) AS counters,
    n.parked,
    p.host_uuid,
    p.labels
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id;
