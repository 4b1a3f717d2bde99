-- Writes down who put commands into the dead letters.
INSERT INTO nodeledger.dead_letter_action (letter, actor, action, detail)
SELECT d.id AS letter, :actor, :action, :detail
FROM nodeledger.dead_letter AS d
WHERE d.command = ANY (:commands::uuid[]) AND d.reason = :reason AND d.state = 'open';
