-- Instances whose roles do not fit together, or that hold something and should not.
-- Every rule is asked of every instance, a row for each that is broken: one fault
-- does not hide another.
WITH held AS (
    SELECT
        a.instance,
        count(*) FILTER (WHERE a.role = 'active') AS active,
        count(*) FILTER (WHERE a.role = 'move_source') AS source,
        count(*) FILTER (WHERE a.role = 'move_destination') AS destination,
        count(*) FILTER (WHERE n.id IS NULL) AS nowhere,
        min(coalesce(n.name, 'a removed node')) AS node
    FROM nodeledger.allocation AS a
    LEFT JOIN nodeledger.node AS n ON n.id = a.node_id
    GROUP BY a.instance
),
judged AS (
    SELECT
        h.node,
        h.instance,
        unnest(ARRAY[
            CASE WHEN h.nowhere > 0 THEN 'holds something on a node that is removed' END,
            CASE WHEN h.active > 1 THEN format('has %s active allocations', h.active) END,
            CASE WHEN h.source > 1 OR h.destination > 1 THEN 'has more than one move' END,
            CASE WHEN h.active > 0 AND h.source + h.destination > 0 THEN 'is active while it moves' END,
            CASE WHEN h.source > 0 AND h.destination = 0 THEN 'moves from here to nowhere' END,
            CASE WHEN i.deleted_at IS NOT NULL AND h.active + h.source + h.destination > 0 THEN 'is deleted and holds something' END,
            CASE WHEN i.id IS NULL AND h.active + h.source + h.destination > 0 THEN 'is not known' END,
            CASE WHEN i.move IS NOT NULL AND h.destination = 0 THEN 'has an open move without a destination' END,
            CASE WHEN i.id IS NOT NULL AND i.move IS NULL AND h.source + h.destination > 0 THEN 'moves without a move' END
        ]) AS detail
    FROM held AS h
    LEFT JOIN nodeledger.instance AS i ON i.id = h.instance
    UNION ALL
    SELECT NULL, i.id, 'has an open move and holds nothing'
    FROM nodeledger.instance AS i
    WHERE i.move IS NOT NULL AND NOT EXISTS (SELECT FROM nodeledger.allocation AS a WHERE a.instance = i.id)
)
SELECT 'instance' AS rule, j.node, j.instance, 'roles' AS subject, j.detail
FROM judged AS j
WHERE j.detail IS NOT NULL;
