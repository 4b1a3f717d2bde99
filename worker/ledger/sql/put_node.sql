-- A new node, with its profile. Commands may still be parked for one of its name
-- that was removed: they are locked, so that whoever is just answering one is
-- waited for, or finds the node.
WITH waiting AS (
    SELECT 1 FROM nodeledger.parked_command AS c WHERE c.node = :name AND c.blocking FOR UPDATE
),
taken AS (
    DELETE FROM nodeledger.former_name WHERE name = :name
),
added AS (
    INSERT INTO nodeledger.node (name, generation) VALUES (:name, :generation) RETURNING id
)
INSERT INTO nodeledger.node_profile (node_id, hypervisor, policy, inventory, capacity, host_uuid, labels)
SELECT
    id AS node_id, :hypervisor, :policy::text::jsonb, :inventory::text::jsonb, :capacity::text::jsonb, :host_uuid,
    :labels::text::jsonb
FROM added
RETURNING node_id, (SELECT count(*) FROM waiting) AS waiting
