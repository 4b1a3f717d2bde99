-- The first worker decides how many shards there are.
WITH first AS (
    INSERT INTO nodeledger.installation (shards) VALUES ($1)
    ON CONFLICT (single) DO NOTHING
    RETURNING shards
)
SELECT f.shards FROM first AS f
UNION ALL
SELECT i.shards FROM nodeledger.installation AS i
LIMIT 1;
