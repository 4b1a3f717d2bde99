-- The rare leftovers of a batch: parked commands that were answered ($1), attempts
-- of commands that finished ($2), dead letters whose command was applied or
-- rejected ($3). Which letters that settles is as in dead_letter_resolve.sql. They are
-- locked in the order of their ids first: an UPDATE would take them as it finds them,
-- and two batches could wait for each other.
WITH unparked AS (
    DELETE FROM nodeledger.parked_command WHERE command = ANY ($1::uuid[])
),
finished AS (
    DELETE FROM nodeledger.attempt WHERE command = ANY ($2::uuid[])
),
resolved AS (
    UPDATE nodeledger.dead_letter AS d SET state = 'resolved'
    FROM (
        SELECT id
        FROM nodeledger.dead_letter
        WHERE
            command = ANY ($3::uuid[])
            AND state IN ('open', 'replayed')
            AND (
                reason IN ('poison', 'hypervisor_timeout', 'misrouted', 'unknown_kind', 'unsupported_version')
                OR (state = 'replayed' AND reason <> 'id_reuse')
            )
        ORDER BY id
        FOR NO KEY UPDATE
    ) AS answered
    WHERE d.id = answered.id
    RETURNING d.id
)
INSERT INTO nodeledger.dead_letter_action (letter, actor, action, detail)
SELECT id, 'worker', 'resolved', 'its command was answered' FROM resolved
