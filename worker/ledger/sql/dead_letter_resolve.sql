-- Resolves letters whose command has its final outcome by now. Letters that only
-- name somebody else's id (reused, or from a body that cannot be parsed) count
-- only once they were replayed.
WITH finished AS (
    SELECT d.id, c.status
    FROM nodeledger.dead_letter AS d
    JOIN nodeledger.command AS c ON c.id = d.command
    WHERE
        d.state IN ('open', 'replayed')
        AND c.status IN ('applied', 'rejected')
        AND (
            d.reason IN ('poison', 'hypervisor_timeout', 'misrouted', 'unknown_kind', 'unsupported_version')
            OR (d.state = 'replayed' AND d.reason <> 'id_reuse')
        )
    ORDER BY d.id
    LIMIT $1
    FOR NO KEY UPDATE OF d SKIP LOCKED
),
resolved AS (
    UPDATE nodeledger.dead_letter AS d
    SET state = 'resolved'
    FROM finished AS f
    WHERE d.id = f.id
    RETURNING d.id, f.status
),
noted AS (
    INSERT INTO nodeledger.dead_letter_action (letter, actor, action, detail)
    SELECT r.id, 'nodeledger', 'resolved', 'its command is ' || r.status FROM resolved AS r
    RETURNING letter
)
SELECT count(*) FROM noted;
