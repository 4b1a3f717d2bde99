-- A new node, with its profile. Commands may still wait for one of its name that was removed.
WITH added AS (
    INSERT INTO nodeledger.node (name, generation) VALUES (:name, :generation) RETURNING id
)
INSERT INTO nodeledger.node_profile (node_id, hypervisor, policy, inventory, capacity)
SELECT id AS node_id, :hypervisor, :policy::text::jsonb, :inventory::text::jsonb, :capacity::text::jsonb FROM added
RETURNING
    node_id,
    (SELECT count(*) FROM nodeledger.parked_command AS c WHERE c.node = :name AND c.blocking) AS waiting
