-- A node's settings and inventory, anew. Where it has no hypervisor any more, nothing differs from one.
WITH incomparable AS (
    UPDATE nodeledger.drift SET resolved_at = now()
    WHERE node_id = :node_id AND resolved_at IS NULL AND :hypervisor::text IS NULL
)
UPDATE nodeledger.node_profile
SET
    hypervisor = :hypervisor,
    policy = :policy::text::jsonb,
    inventory = :inventory::text::jsonb,
    capacity = :capacity::text::jsonb,
    host_uuid = :host_uuid,
    labels = :labels::text::jsonb
WHERE node_id = :node_id
