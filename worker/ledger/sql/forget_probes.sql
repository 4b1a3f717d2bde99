-- Forgets nodes that are locked, unless something was parked before they were.
DELETE FROM nodeledger.probe AS p
WHERE p.node = ANY ($1::text[])
    AND NOT EXISTS (SELECT FROM nodeledger.parked_command AS c WHERE c.node = p.node)
