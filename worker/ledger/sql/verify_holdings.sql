-- CPUs and devices that are held according to some of the unique tables, the
-- allocations and the last entries, but not to all three. Each says its own and the
-- sources are counted: comparing each with each would take six passes. Both sides of
-- a move within a node may hold one CPU, which counts once; an entry without pins or
-- devices says that none are held any more.
WITH last_entry AS (
    SELECT DISTINCT ON (e.node, e.instance) e.node, e.instance, e.pins, e.devices
    FROM nodeledger.entry AS e
    ORDER BY e.node, e.instance, e.seq DESC
),
said AS (
    SELECT 'table' AS source, n.name AS node, c.instance, 'CPU ' || c.cpu AS thing
    FROM nodeledger.pinned_cpu AS c
    LEFT JOIN nodeledger.node AS n ON n.id = c.node_id
    UNION ALL
    SELECT 'table', n.name, d.instance, 'device ' || d.address
    FROM nodeledger.held_device AS d
    LEFT JOIN nodeledger.node AS n ON n.id = d.node_id
    UNION ALL
    SELECT DISTINCT 'allocations', n.name, a.instance, 'CPU ' || p.cpu
    FROM nodeledger.allocation AS a
    CROSS JOIN LATERAL unnest(a.pins) AS p (cpu)
    LEFT JOIN nodeledger.node AS n ON n.id = a.node_id
    UNION ALL
    SELECT DISTINCT 'allocations', n.name, a.instance, 'device ' || d.address
    FROM nodeledger.allocation AS a
    CROSS JOIN LATERAL unnest(a.devices) AS d (address)
    LEFT JOIN nodeledger.node AS n ON n.id = a.node_id
    UNION ALL
    SELECT 'entries', e.node, e.instance, 'CPU ' || p.cpu
    FROM last_entry AS e
    CROSS JOIN LATERAL unnest(e.pins) AS p (cpu)
    UNION ALL
    SELECT 'entries', e.node, e.instance, 'device ' || d.address
    FROM last_entry AS e
    CROSS JOIN LATERAL unnest(e.devices) AS d (address)
)
SELECT
    'holding' AS rule,
    coalesce(s.node, 'a removed node') AS node,
    s.instance,
    s.thing AS subject,
    'held according only to: ' || string_agg(s.source, ', ' ORDER BY s.source) AS detail
FROM said AS s
GROUP BY s.node, s.instance, s.thing
HAVING count(DISTINCT s.source) < 3 OR s.node IS NULL;
