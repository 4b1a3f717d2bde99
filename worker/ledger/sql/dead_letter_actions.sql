SELECT a.at, a.actor, a.action, a.detail
FROM nodeledger.dead_letter_action AS a
WHERE a.letter = $1
ORDER BY a.id;
