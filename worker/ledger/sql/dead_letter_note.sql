-- Writes down who put commands into the dead letters.
INSERT INTO nodeledger.dead_letter_action (letter, actor, action, detail)
SELECT d.id, $3, $4, $5
FROM nodeledger.dead_letter AS d
WHERE d.command = ANY ($1::uuid[]) AND d.reason = $2 AND d.state = 'open';
