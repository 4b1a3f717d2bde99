-- A node's settings and inventory, anew.
UPDATE nodeledger.node_profile
SET
    hypervisor = :hypervisor,
    policy = :policy::text::jsonb,
    inventory = :inventory::text::jsonb,
    capacity = :capacity::text::jsonb,
    host_uuid = :host_uuid,
    labels = :labels::text::jsonb
WHERE node_id = :node_id
