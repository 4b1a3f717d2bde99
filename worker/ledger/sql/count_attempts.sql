-- Commands that are about to be tried once more; one that was sent twice is in
-- a batch twice, and tried once.
INSERT INTO nodeledger.attempt AS a (command, attempts, at)
SELECT x.command, 1, now() FROM (SELECT DISTINCT unnest($1::uuid[]) AS command ORDER BY 1) AS x
ON CONFLICT (command) DO UPDATE SET attempts = a.attempts + 1, at = excluded.at
