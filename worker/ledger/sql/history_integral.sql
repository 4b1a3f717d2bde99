-- Amount times seconds that a project was charged in a period. Each change adds
-- its delta for the time from then to the end of the period.
SELECT
    c.resource,
    sum(c.delta * extract(epoch FROM $3::timestamptz - greatest(h.at, $2::timestamptz))) AS amount_seconds
FROM nodeledger.history_view AS h
CROSS JOIN LATERAL unnest(h.counters, h.deltas) AS c (resource, delta)
WHERE
    h.project = $1
    AND h.at < $3
    AND ($4::text IS NULL OR h.user_id = $4)
    AND strpos(c.resource, '/') = 0
GROUP BY c.resource
ORDER BY c.resource;
