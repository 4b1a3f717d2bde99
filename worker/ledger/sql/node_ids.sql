-- Nodes after a name, or those of these names, without locking them.
SELECT n.id, n.name
FROM nodeledger.node AS n
WHERE n.name > $1 AND ($2::text[] IS NULL OR n.name = ANY ($2))
ORDER BY n.name
LIMIT $3;
