-- A node's settings and inventory, anew.
UPDATE nodeledger.node_profile
SET
    hypervisor = $2,
    policy = $3::text::jsonb,
    inventory = $4::text::jsonb,
    capacity = $5::text::jsonb,
    host_uuid = $6,
    labels = $7::text::jsonb
WHERE node_id = $1
