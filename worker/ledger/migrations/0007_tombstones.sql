-- Forgets that instances were deleted: their ids may be claimed again. Not as
-- long as a command that is parked, or whose letter may still be replayed, could
-- claim them; of a claim for several, any of them.
CREATE OR REPLACE FUNCTION nodeledger.purge_tombstones(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH awaited AS MATERIALIZED (
        SELECT c.instance FROM nodeledger.command AS c
        WHERE c.status = 'parked' AND (c.instance IS NOT NULL OR c.kind = 'claim')
        UNION
        SELECT c.instance FROM nodeledger.dead_letter AS d
        LEFT JOIN nodeledger.command AS c ON c.id = d.command
        WHERE d.state IN ('open', 'replayed') AND (c.instance IS NOT NULL OR d.kind = 'claim')
    ),
    old AS (
        SELECT i.id FROM nodeledger.instance AS i
        WHERE
            i.deleted_at < before
            AND NOT EXISTS (SELECT FROM nodeledger.allocation AS a WHERE a.instance = i.id)
            AND NOT EXISTS (SELECT FROM awaited AS w WHERE w.instance = i.id OR w.instance IS NULL)
        ORDER BY i.deleted_at
        LIMIT portion
        FOR UPDATE OF i SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.instance AS i USING old AS o WHERE i.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;
