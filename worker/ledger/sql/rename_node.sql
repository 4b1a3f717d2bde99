-- A node gets another name, which is then nobody's former one. As in put_node.sql, what
-- is still parked for a removed one of that name is locked and counted.
WITH waiting AS (
    SELECT 1 FROM nodeledger.parked_command AS c WHERE c.node = :name AND c.blocking FOR UPDATE
),
taken AS (
    DELETE FROM nodeledger.former_name WHERE name = :name
)
UPDATE nodeledger.node SET name = :name
WHERE id = :id AND name = :former
RETURNING (SELECT count(*) FROM waiting) AS waiting
