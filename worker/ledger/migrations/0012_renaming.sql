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
