-- A generation is told from another of the same number, which a fail-over that
-- lost commits can bring about, by a random stamp.
ALTER TABLE nodeledger.node ADD COLUMN stamp bigint NOT NULL DEFAULT (random() * 9e18)::bigint;

-- Instances that hold nothing and that nobody waits for: since when.
ALTER TABLE nodeledger.instance ADD COLUMN idle_since timestamptz;
UPDATE nodeledger.instance AS i SET idle_since = now()
WHERE
    i.deleted_at IS NULL AND i.stranded IS NULL AND coalesce(i.state, 'deleted') = 'deleted'
    AND NOT EXISTS (SELECT FROM nodeledger.allocation AS a WHERE a.instance = i.id);
CREATE INDEX instance_idle ON nodeledger.instance (idle_since) WHERE idle_since IS NOT NULL;

-- Whom a command that is parked, or whose letter may still be replayed, could
-- claim; null: anybody, by a claim for several.
CREATE FUNCTION nodeledger.awaited_instances() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.instance FROM nodeledger.command AS c
    WHERE c.status = 'parked' AND (c.instance IS NOT NULL OR c.kind = 'claim')
    UNION
    SELECT c.instance FROM nodeledger.dead_letter AS d
    LEFT JOIN nodeledger.command AS c ON c.id = d.command
    WHERE d.state IN ('open', 'replayed') AND (c.instance IS NOT NULL OR d.kind = 'claim')
$$;

-- Forgets that instances were deleted: their ids may be claimed again.
CREATE OR REPLACE FUNCTION nodeledger.purge_tombstones(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH awaited AS MATERIALIZED (
        SELECT w.instance FROM nodeledger.awaited_instances() AS w (instance)
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

-- Forgets instances whose claim was aborted or expired, and their revisions, as
-- tombstones are. One that is claimed just now is idle no more when it is locked.
CREATE FUNCTION nodeledger.purge_idle_instances(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH awaited AS MATERIALIZED (
        SELECT w.instance FROM nodeledger.awaited_instances() AS w (instance)
    ),
    old AS (
        SELECT i.id FROM nodeledger.instance AS i
        WHERE
            i.idle_since < before
            AND NOT EXISTS (SELECT FROM nodeledger.allocation AS a WHERE a.instance = i.id)
            AND NOT EXISTS (SELECT FROM awaited AS w WHERE w.instance = i.id OR w.instance IS NULL)
        ORDER BY i.idle_since
        LIMIT portion
        FOR UPDATE OF i SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.instance AS i USING old AS o WHERE i.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Puts right what contradicts itself about parked commands, of these nodes or,
-- null, of all; answers on how many nodes and commands. One that was said to be
-- dead while its row waits goes on waiting, one that was answered waits no more,
-- nodes are counted anew, and those that nobody would ask are asked.
DROP FUNCTION nodeledger.repair_parked();
CREATE FUNCTION nodeledger.repair_parked(only_nodes text[]) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    names text[];
    part bigint;
    repaired bigint;
BEGIN
    names := ARRAY(
        SELECT n.name FROM nodeledger.node AS n
        WHERE
            (only_nodes IS NULL OR n.name = ANY (only_nodes))
            AND n.parked <> (SELECT count(*) FROM nodeledger.parked_command AS p WHERE p.node = n.name AND p.blocking)
        UNION
        SELECT p.node
        FROM nodeledger.parked_command AS p
        JOIN nodeledger.command AS c ON c.id = p.command
        WHERE (only_nodes IS NULL OR p.node = ANY (only_nodes)) AND c.status <> 'parked'
    );
    PERFORM FROM nodeledger.node AS n WHERE n.name = ANY (names) ORDER BY n.id FOR UPDATE;
    UPDATE nodeledger.command AS c SET
        status = 'parked',
        outcome = (
            (c.outcome::jsonb - 'dead_letter') || jsonb_build_object(
                'status', 'parked', 'sequence', coalesce((c.outcome::jsonb ->> 'sequence')::bigint, 1) + 1
            )
        )::text
    FROM nodeledger.parked_command AS p
    WHERE p.node = ANY (names) AND c.id = p.command AND c.status = 'dead';
    GET DIAGNOSTICS repaired = ROW_COUNT;
    DELETE FROM nodeledger.parked_command AS p USING nodeledger.command AS c
    WHERE p.node = ANY (names) AND c.id = p.command AND c.status IN ('applied', 'rejected');
    GET DIAGNOSTICS part = ROW_COUNT;
    repaired := repaired + part;
    UPDATE nodeledger.node AS n
    SET parked = x.waiting, generation = n.generation + 1, stamp = (random() * 9e18)::bigint
    FROM (
        SELECT m.id, count(p.seq) FILTER (WHERE p.blocking) AS waiting
        FROM nodeledger.node AS m
        LEFT JOIN nodeledger.parked_command AS p ON p.node = m.name
        WHERE m.name = ANY (names)
        GROUP BY m.id
    ) AS x
    WHERE n.id = x.id AND n.parked <> x.waiting;
    GET DIAGNOSTICS part = ROW_COUNT;
    repaired := repaired + part;
    INSERT INTO nodeledger.probe (node, next_at)
    SELECT DISTINCT p.node, now() FROM nodeledger.parked_command AS p
    WHERE only_nodes IS NULL OR p.node = ANY (only_nodes)
    ORDER BY p.node
    ON CONFLICT (node) DO NOTHING;
    GET DIAGNOSTICS part = ROW_COUNT;
    RETURN repaired + part;
END
$$;

REVOKE EXECUTE ON FUNCTION
    nodeledger.awaited_instances, nodeledger.purge_idle_instances, nodeledger.repair_parked
FROM PUBLIC;
