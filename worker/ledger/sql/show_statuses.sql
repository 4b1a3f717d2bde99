-- How far commands have come, and what content their ids stand for.
SELECT c.id, c.fingerprint, c.status
FROM nodeledger.command AS c
WHERE c.id = ANY ($1::uuid[]);
