-- Nodes whose parked commands may go on, left to the caller for a while ($2 to
-- $3 seconds, doubling). Taking a node and putting its next time off are one statement,
-- and nodes that another worker is just taking are skipped: so each is asked by one.
-- The exponent ends at 20, long past any $3, before powers of 2 leave their type.
WITH due AS (
    SELECT p.node
    FROM nodeledger.probe AS p
    WHERE p.next_at <= now()
        AND EXISTS (SELECT FROM nodeledger.parked_command AS c WHERE c.node = p.node)
    ORDER BY p.next_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
)
UPDATE nodeledger.probe AS p
SET attempts = p.attempts + 1,
    next_at = now() + make_interval(secs => least($3::float8, $2::float8 * 2 ^ least(p.attempts, 20)))
FROM due
WHERE p.node = due.node
RETURNING p.node
