-- What an instance is charged on a node: for each counter the larger of its
-- roles there, of which every role but the destination of a move bears its own.
-- The rule is written down a second time here, and not that of the code asked: a
-- fault in one of the two then shows. A destination that exceeds its source in nothing
-- bears no counter, hence the full join.
WITH charge AS (
    SELECT a.instance, a.node_id, a.role, c.key AS counter, c.value::bigint AS amount
    FROM nodeledger.allocation AS a
    CROSS JOIN LATERAL jsonb_each_text(a.charge) AS c
),
full_charge AS (
    SELECT a.instance, a.node_id, a.role, c.key AS counter, c.value::bigint AS amount
    FROM nodeledger.allocation AS a
    CROSS JOIN LATERAL jsonb_each_text(a.full_charge) AS c
),
due AS (
    SELECT
        f.instance,
        f.node_id,
        f.role,
        f.counter,
        CASE
            WHEN f.role = 'move_destination' THEN greatest(0, f.amount - coalesce(s.amount, 0))
            ELSE f.amount
        END AS amount
    FROM full_charge AS f
    LEFT JOIN full_charge AS s
        ON
            f.role = 'move_destination'
            AND s.role = 'move_source'
            AND (s.instance, s.node_id, s.counter) = (f.instance, f.node_id, f.counter)
)
SELECT
    'charge' AS rule,
    coalesce(n.name, 'removed node ' || node_id) AS node,
    instance,
    counter AS subject,
    format('as %s charged %s, due %s', role, coalesce(c.amount, 0), coalesce(d.amount, 0)) AS detail
FROM charge AS c
FULL JOIN due AS d USING (instance, node_id, role, counter)
LEFT JOIN nodeledger.node AS n ON n.id = node_id
WHERE coalesce(c.amount, 0) <> coalesce(d.amount, 0);
