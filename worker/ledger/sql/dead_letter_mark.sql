-- Sets the state of letters and writes down who did it; returns how many changed.
WITH marked AS (
    UPDATE nodeledger.dead_letter AS d
    SET state = :state
    FROM (
        SELECT k.id FROM nodeledger.dead_letter AS k
        WHERE k.id = ANY (:letters::bigint[]) AND (k.state <> :state OR :state = 'replayed')
        ORDER BY k.id
        FOR NO KEY UPDATE
    ) AS o
    WHERE d.id = o.id
    RETURNING d.id
),
noted AS (
    INSERT INTO nodeledger.dead_letter_action (letter, actor, action, detail)
    SELECT m.id AS letter, :actor, :action, :detail FROM marked AS m
    RETURNING letter
)
SELECT count(*) FROM noted;
