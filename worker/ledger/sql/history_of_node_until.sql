-- What each instance was charged on a node at a moment, and what it held there.
WITH past AS (
    SELECT
        h.instance,
        h.counters,
        h.deltas,
        first_value(h.pins) OVER last_first AS pins,
        first_value(h.devices) OVER last_first AS devices
    FROM nodeledger.history_view AS h
    WHERE h.node = $1 AND h.at <= $2
    WINDOW last_first AS (PARTITION BY h.instance ORDER BY h.seq DESC)
),
charged AS (
    SELECT p.instance, p.pins, p.devices, c.counter, sum(c.delta)::bigint AS amount
    FROM past AS p
    LEFT JOIN LATERAL unnest(p.counters, p.deltas) AS c (counter, delta) ON true
    GROUP BY p.instance, p.pins, p.devices, c.counter
)
SELECT
    c.instance,
    coalesce(json_object_agg(c.counter, c.amount) FILTER (WHERE c.amount <> 0)::text, '{}') AS charge,
    c.pins,
    c.devices
FROM charged AS c
GROUP BY c.instance, c.pins, c.devices
HAVING bool_or(c.amount <> 0) OR c.pins <> '{}' OR c.devices <> '{}'
ORDER BY c.instance;
