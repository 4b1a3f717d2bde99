-- Lock nodes in the order of their ids, so that no two batches wait for each other.
SELECT name, id, generation, stamp
FROM nodeledger.node
WHERE name = ANY ($1::text[])
ORDER BY id
FOR UPDATE
