-- How far commands have come.
SELECT c.id, c.status
FROM nodeledger.command AS c
WHERE c.id = ANY ($1::uuid[]);
