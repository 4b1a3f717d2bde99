-- What each instance was charged on a node at a moment, and what it held there.
WITH past AS (
    SELECT h.seq, h.instance, h.counters, h.deltas, h.pins, h.devices
    FROM nodeledger.history_view AS h
    WHERE h.node = $1 AND h.at <= $2
),
charged AS (
    SELECT s.instance, json_object_agg(s.counter, s.amount) FILTER (WHERE s.amount <> 0)::text AS charge
    FROM (
        SELECT p.instance, c.counter, sum(c.delta)::bigint AS amount
        FROM past AS p
        CROSS JOIN LATERAL unnest(p.counters, p.deltas) AS c (counter, delta)
        GROUP BY p.instance, c.counter
    ) AS s
    GROUP BY s.instance
),
last AS (
    SELECT DISTINCT ON (p.instance) p.instance, p.pins, p.devices
    FROM past AS p
    ORDER BY p.instance, p.seq DESC
)
SELECT l.instance, coalesce(c.charge, '{}') AS charge, l.pins, l.devices
FROM last AS l
LEFT JOIN charged AS c ON c.instance = l.instance
WHERE c.charge IS NOT NULL OR l.pins <> '{}' OR l.devices <> '{}'
ORDER BY l.instance;
