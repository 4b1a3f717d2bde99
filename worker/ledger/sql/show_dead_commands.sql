-- Which of these commands are in the dead letters, and why; the latest letter of each.
SELECT DISTINCT ON (d.command) d.command, d.id AS letter, d.reason, d.detail
FROM nodeledger.dead_letter AS d
WHERE d.command = ANY ($1::uuid[]) AND d.state IN ('open', 'replayed')
ORDER BY d.command, d.last_seen DESC;
