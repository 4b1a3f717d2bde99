-- What a node's owner says of it, beside how it is.
CREATE OR REPLACE VIEW nodeledger.node_status AS
SELECT
    n.name AS node,
    p.hypervisor,
    coalesce((p.policy ->> 'enabled')::boolean, true) AS enabled,
    n.reachable,
    n.generation,
    n.observed_at,
    (SELECT count(DISTINCT a.instance) FROM nodeledger.allocation AS a WHERE a.node_id = n.id) AS instances,
    n.failed_builds,
    p.labels
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id;
COMMENT ON COLUMN nodeledger.node_status.labels IS 'What its owner says of it, by name';

-- Names that nodes had before they were renamed: who still uses one is told what the node is called now.
CREATE TABLE nodeledger.former_name (
    name text COLLATE "C" PRIMARY KEY,
    node_id bigint NOT NULL REFERENCES nodeledger.node ON DELETE CASCADE
);
CREATE INDEX former_name_of_node ON nodeledger.former_name (node_id);
COMMENT ON TABLE nodeledger.former_name IS 'Names that nodes had before they were renamed';

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
    p.labels,
    ARRAY(SELECT f.name::text FROM nodeledger.former_name AS f WHERE f.node_id = n.id ORDER BY f.name) AS former_names
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id;
COMMENT ON COLUMN nodeledger.node_detail_view.former_names IS 'Names it had before it was renamed; its history up to then is under these';
