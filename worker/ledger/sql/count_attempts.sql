-- Commands that are about to be attempted once more; one that was sent twice is in
-- a batch twice, and attempted once. In the order of their ids, so that no two batches
-- wait for each other.
INSERT INTO nodeledger.attempt AS a (command, attempts, at)
SELECT x.command, 1, now() FROM (SELECT DISTINCT unnest($1::uuid[]) AS command ORDER BY 1) AS x
ON CONFLICT (command) DO UPDATE SET attempts = a.attempts + 1, at = excluded.at
