-- What a node is said to use, beside the sum over its allocations and over its entries.
-- Joined in full, since each of the three may know nodes and counters that the others
-- do not; a counter that is missing counts as 0, as a node keeps those it once used.
WITH stored AS (
    SELECT n.name AS node, x.counter, x.amount
    FROM nodeledger.node AS n
    CROSS JOIN LATERAL unnest(n.counters, n.used) AS x (counter, amount)
),
held AS (
    SELECT coalesce(n.name, 'removed node ' || s.node_id) AS node, s.counter, s.amount
    FROM (
        SELECT a.node_id, c.key AS counter, sum(c.value::bigint)::bigint AS amount
        FROM nodeledger.allocation AS a
        CROSS JOIN LATERAL jsonb_each_text(a.charge) AS c
        GROUP BY a.node_id, c.key
    ) AS s
    LEFT JOIN nodeledger.node AS n ON n.id = s.node_id
),
entered AS (
    SELECT e.node, c.counter, sum(c.delta)::bigint AS amount
    FROM nodeledger.entry AS e
    CROSS JOIN LATERAL unnest(e.counters, e.deltas) AS c (counter, delta)
    GROUP BY e.node, c.counter
)
SELECT
    'use' AS rule,
    node,
    NULL::uuid AS instance,
    counter AS subject,
    format(
        'stored %s, in allocations %s, in entries %s',
        coalesce(s.amount, 0), coalesce(h.amount, 0), coalesce(e.amount, 0)
    ) AS detail
FROM stored AS s
FULL JOIN held AS h USING (node, counter)
FULL JOIN entered AS e USING (node, counter)
WHERE
    coalesce(s.amount, 0) <> coalesce(h.amount, 0)
    OR coalesce(s.amount, 0) <> coalesce(e.amount, 0)
    OR s.amount < 0; -- though all three agree
