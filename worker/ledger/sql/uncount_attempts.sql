-- Commands that were begun, and wait for an answer before they are begun again.
UPDATE nodeledger.attempt AS a SET attempts = a.attempts - 1
FROM (
    SELECT k.command FROM nodeledger.attempt AS k
    WHERE k.command = ANY ($1::uuid[]) AND k.attempts > 0
    ORDER BY k.command
    FOR UPDATE
) AS begun
WHERE a.command = begun.command
