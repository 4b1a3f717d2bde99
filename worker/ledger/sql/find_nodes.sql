-- As lock_nodes, for those who only look.
SELECT id, name, generation
FROM nodeledger.node
WHERE name = ANY ($1::text[])
ORDER BY id
