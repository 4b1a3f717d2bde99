-- A new node, with its profile.
WITH added AS (
    INSERT INTO nodeledger.node (name, generation) VALUES ($1, $2) RETURNING id
)
INSERT INTO nodeledger.node_profile (node_id, hypervisor, policy, inventory, capacity)
SELECT id, $3, $4::text::jsonb, $5::text::jsonb, $6::text::jsonb FROM added
RETURNING node_id
