-- Forgets what has long ceased to differ; answers how much of it.
WITH old AS (
    SELECT d.id FROM nodeledger.drift AS d
    WHERE d.resolved_at < now() - $1::interval
    ORDER BY d.resolved_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM nodeledger.drift AS d USING old AS o WHERE d.id = o.id RETURNING 1
)
SELECT count(*) FROM gone
