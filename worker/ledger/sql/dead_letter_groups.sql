-- How many letters there are of each reason and fingerprint, the largest group first.
SELECT
    d.reason, d.fingerprint, count(*) AS letters, count(DISTINCT d.node) AS nodes, min(d.first_seen) AS first_seen,
    max(d.last_seen) AS last_seen, min(d.id) AS example
FROM nodeledger.dead_letter AS d
WHERE $1::text[] IS NULL OR d.state = ANY ($1)
GROUP BY d.reason, d.fingerprint
ORDER BY letters DESC, d.reason, d.fingerprint;
