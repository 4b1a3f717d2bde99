-- Names ($1) that nodes had which are called otherwise ($2) now.
INSERT INTO nodeledger.former_name (name, node_id)
SELECT x.former, n.id
FROM unnest($1::text[], $2::text[]) AS x (former, name)
JOIN nodeledger.node AS n ON n.name = x.name
ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id
