-- The instances that hold something on nodes.
SELECT n.name AS node, array_agg(DISTINCT a.instance) AS instances
FROM nodeledger.allocation AS a
JOIN nodeledger.node AS n ON n.id = a.node_id
WHERE n.name = ANY ($1::text[])
GROUP BY n.name
