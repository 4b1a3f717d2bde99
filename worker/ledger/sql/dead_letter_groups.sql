-- How many letters of a filter there are of each reason and fingerprint, the largest group first.
SELECT
    d.reason, d.fingerprint, count(*) AS letters, count(DISTINCT d.node) AS nodes, min(d.first_seen) AS first_seen,
    max(d.last_seen) AS last_seen, min(d.id) AS example
FROM nodeledger.dead_letter AS d
WHERE
    (:states::text[] IS NULL OR d.state = ANY (:states))
    AND (:reason::text IS NULL OR d.reason = :reason)
    AND (:node::text IS NULL OR d.node = :node)
    AND (:kind::text IS NULL OR d.kind = :kind)
    AND (:group::text IS NULL OR d.fingerprint = :group)
GROUP BY d.reason, d.fingerprint
ORDER BY letters DESC, d.reason, d.fingerprint;
