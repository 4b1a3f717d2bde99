-- Of nodes that are not there: how many commands that hold up others are parked for
-- them, and what the node is called now that once had the name.
SELECT
    x.node,
    (
        SELECT count(*) FROM nodeledger.parked_command AS c WHERE c.node = x.node AND c.blocking
    ) AS waiting,
    (
        SELECT n.name
        FROM nodeledger.former_name AS f
        JOIN nodeledger.node AS n ON n.id = f.node_id
        WHERE f.name = x.node
    ) AS renamed_to
FROM unnest($1::text[]) AS x (node)
