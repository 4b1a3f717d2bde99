-- Have the hypervisors of nodes with parked commands asked at once; answers which.
INSERT INTO nodeledger.probe AS b (node, attempts, next_at)
SELECT DISTINCT p.node, 0, now() FROM nodeledger.parked_command AS p
WHERE $1::text[] IS NULL OR p.node = ANY ($1)
ORDER BY p.node
ON CONFLICT (node) DO UPDATE SET attempts = 0, next_at = now()
RETURNING b.node;
