-- Nodes that are removed; their profiles go with them.
DELETE FROM nodeledger.node WHERE id = ANY ($1::bigint[])
