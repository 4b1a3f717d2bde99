-- Replaces the owners of shards, and forgets shards that are no more.
WITH wanted (number, owner) AS (
    SELECT w.number, w.owner FROM unnest($1::integer[], $2::uuid[]) AS w (number, owner)
),
gone AS (
    DELETE FROM nodeledger.shard AS s WHERE s.number >= $3
)
INSERT INTO nodeledger.shard AS s (number, owner)
SELECT w.number, w.owner FROM wanted AS w
ON CONFLICT (number) DO UPDATE SET owner = excluded.owner;
