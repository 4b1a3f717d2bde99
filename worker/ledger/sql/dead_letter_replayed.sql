-- Writes down that letters were sent again, and by whom. One that came back
-- meanwhile has been seen once more than its sender knew, and stays open. One
-- that a worker is just about to resolve or to open again is left to it.
WITH sent AS (
    SELECT s.id, s.attempts FROM unnest($1::bigint[], $2::bigint[]) AS s (id, attempts)
),
marked AS (
    UPDATE nodeledger.dead_letter AS d
    SET state = 'replayed'
    FROM (
        SELECT k.id FROM nodeledger.dead_letter AS k
        JOIN sent AS s ON s.id = k.id AND s.attempts = k.attempts
        WHERE k.state IN ('open', 'replayed')
        ORDER BY k.id
        FOR NO KEY UPDATE OF k SKIP LOCKED
    ) AS o
    WHERE d.id = o.id
)
INSERT INTO nodeledger.dead_letter_action (letter, actor, action)
SELECT s.id, $3, 'replayed' FROM sent AS s;
