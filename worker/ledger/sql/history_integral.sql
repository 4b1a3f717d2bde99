-- Amount times seconds that a project was charged in a period. Each change adds
-- its delta for the time from then to the end of the period.
SELECT
    c.resource,
    sum(c.delta * extract(epoch FROM :until::timestamptz - greatest(h.at, :since::timestamptz))) AS amount_seconds
FROM nodeledger.history_view AS h
CROSS JOIN LATERAL unnest(h.counters, h.deltas) AS c (resource, delta)
WHERE
    h.project = :project
    AND h.at < :until
    AND (:user::text IS NULL OR h.user_id = :user)
    AND strpos(c.resource, '/') = 0
GROUP BY c.resource
ORDER BY c.resource;
