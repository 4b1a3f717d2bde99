-- Parked commands that are miscounted, answered already, or lost. Of the commands of
-- many days only those are joined that wait according to either side.
SELECT
    'parked' AS rule,
    n.name AS node,
    NULL::uuid AS instance,
    'count' AS subject,
    format('the node says %s, there are %s', n.parked, coalesce(p.waiting, 0)) AS detail
FROM nodeledger.node AS n
LEFT JOIN (
    SELECT c.node, count(*) AS waiting FROM nodeledger.parked_command AS c WHERE c.blocking GROUP BY c.node
) AS p ON p.node = n.name
WHERE n.parked <> coalesce(p.waiting, 0)
UNION ALL
SELECT 'parked', coalesce(p.node, c.node), c.instance, 'command ' || coalesce(p.command, c.id),
    CASE
        WHEN c.id IS NULL THEN 'waits, and has no outcome yet'
        WHEN p.command IS NULL THEN 'is said to wait, and does not'
        ELSE 'waits, and is answered: ' || c.status
    END
FROM nodeledger.parked_command AS p
FULL JOIN (
    SELECT k.* FROM nodeledger.command AS k
    WHERE k.status = 'parked' OR k.id IN (SELECT w.command FROM nodeledger.parked_command AS w)
) AS c ON c.id = p.command
WHERE c.status IS DISTINCT FROM 'parked' OR p.command IS NULL;
