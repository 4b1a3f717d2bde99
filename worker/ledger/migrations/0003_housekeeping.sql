-- What the worker may have done to old rows, though it may not delete them
-- itself. Nothing younger than a day can be reached.

CREATE TABLE nodeledger.entry_carried PARTITION OF nodeledger.entry FOR VALUES FROM (MINVALUE) TO ('2000-01-01 00:00:00Z');

CREATE FUNCTION nodeledger.check_retention(before timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF before IS NULL OR before > now() - interval '1 day' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'rows younger than a day are kept';
    END IF;
END
$$;

-- Makes a partition for this month and each of the next; answers how many it made.
CREATE FUNCTION nodeledger.prepare_entry_months(ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
SET TimeZone = 'UTC'
AS $$
DECLARE
    month timestamptz;
    partition text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('nodeledger.entry', 0));
    FOR month IN
        SELECT generate_series(date_trunc('month', now()), date_trunc('month', now()) + least(ahead, 12) * interval '1 month', '1 month')
    LOOP
        partition := to_char(month, '"entry_"YYYY"_"MM');
        CONTINUE WHEN to_regclass('nodeledger.' || partition) IS NOT NULL;
        LOCK TABLE nodeledger.entry_rest IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE nodeledger.%I (LIKE nodeledger.entry)', partition);
        EXECUTE format(
            'WITH late AS (DELETE FROM nodeledger.entry_rest WHERE at >= %L AND at < %L RETURNING *)'
            ' INSERT INTO nodeledger.%I SELECT * FROM late',
            month, month + interval '1 month', partition
        );
        EXECUTE format(
            'ALTER TABLE nodeledger.entry ATTACH PARTITION nodeledger.%I FOR VALUES FROM (%L) TO (%L)',
            partition, month, month + interval '1 month'
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Replaces the entries of whole months by one line for each instance that
-- still holds something, of kind 'carried', so that every sum stays what it was.
-- Takes so many nodes after a name; answers the last of them, null at the end.
CREATE FUNCTION nodeledger.carry_entries(before timestamptz, after_node text, portion integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
SET enable_hashjoin = on
SET enable_mergejoin = on
AS $$
DECLARE
    month CONSTANT timestamptz := date_trunc('month', before);
    names text[];
BEGIN
    PERFORM nodeledger.check_retention(before);
    IF NOT pg_try_advisory_xact_lock(hashtextextended('nodeledger.entry', 0)) THEN
        RETURN NULL;
    END IF;
    names := ARRAY(
        SELECT DISTINCT e.node COLLATE "C" FROM nodeledger.entry AS e
        WHERE e.node > after_node AND e.at >= '2000-01-01 00:00:00Z' AND e.at < month
        ORDER BY 1
        LIMIT portion
    );
    WITH gone AS (
        DELETE FROM nodeledger.entry AS e WHERE e.node = ANY (names) AND e.at < month RETURNING e.*
    ),
    total AS (
        SELECT g.node, g.instance, c.counter, sum(c.delta)::bigint AS amount
        FROM gone AS g
        CROSS JOIN LATERAL unnest(g.counters, g.deltas) AS c (counter, delta)
        GROUP BY g.node, g.instance, c.counter
        HAVING sum(c.delta) <> 0
    ),
    last AS (
        SELECT DISTINCT ON (g.node, g.instance) g.* FROM gone AS g ORDER BY g.node, g.instance, g.seq DESC
    ),
    running AS (
        SELECT
            l.seq, t.counter, t.amount,
            sum(t.amount) OVER (PARTITION BY l.node, t.counter ORDER BY l.seq)::bigint AS used_after
        FROM last AS l
        JOIN total AS t ON (t.node, t.instance) = (l.node, l.instance)
    ),
    line AS (
        SELECT
            r.seq,
            array_agg(r.counter ORDER BY r.counter) AS counters,
            array_agg(r.amount ORDER BY r.counter) AS deltas,
            array_agg(r.used_after ORDER BY r.counter) AS used_after
        FROM running AS r
        GROUP BY r.seq
    )
    INSERT INTO nodeledger.entry (
        seq, at, node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices
    )
    OVERRIDING SYSTEM VALUE
    SELECT
        l.seq, 'epoch', l.node, l.instance, l.project, l.user_id, l.command, 'carried',
        coalesce(n.counters, '{}'), coalesce(n.deltas, '{}'), coalesce(n.used_after, '{}'), l.pins, l.devices
    FROM last AS l
    LEFT JOIN line AS n ON n.seq = l.seq
    WHERE n.seq IS NOT NULL OR cardinality(l.pins) > 0 OR cardinality(l.devices) > 0;
    RETURN names[cardinality(names)];
END
$$;

-- Drops the partitions of months that were carried forward, unless somebody is
-- busy with the ledger for longer than a moment; answers how many.
CREATE FUNCTION nodeledger.drop_entry_months(before timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
SET TimeZone = 'UTC'
AS $$
DECLARE
    partition text;
    filled boolean;
    dropped integer := 0;
BEGIN
    PERFORM nodeledger.check_retention(before);
    FOR partition IN
        SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE
            i.inhparent = 'nodeledger.entry'::regclass
            AND c.relname ~ '^entry_\d{4}_\d\d$'
            AND c.relname COLLATE "C" < to_char(before, '"entry_"YYYY"_"MM') COLLATE "C"
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM nodeledger.%I)', partition) INTO filled;
        CONTINUE WHEN filled;
        BEGIN
            EXECUTE format('DROP TABLE nodeledger.%I', partition);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            RETURN dropped;
        END;
    END LOOP;
    RETURN dropped;
END
$$;

-- Forgets answered commands: their ids are new again.
CREATE FUNCTION nodeledger.purge_commands(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH old AS (
        SELECT c.id FROM nodeledger.command AS c
        WHERE c.at < before AND c.status IN ('applied', 'rejected')
        ORDER BY c.at
        LIMIT portion
        FOR UPDATE SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.command AS c USING old AS o WHERE c.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Forgets that instances were deleted: their ids may be claimed again.
CREATE FUNCTION nodeledger.purge_tombstones(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH old AS (
        SELECT i.id FROM nodeledger.instance AS i
        WHERE
            i.deleted_at < before
            AND NOT EXISTS (SELECT FROM nodeledger.allocation AS a WHERE a.instance = i.id)
        ORDER BY i.deleted_at
        LIMIT portion
        FOR UPDATE SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.instance AS i USING old AS o WHERE i.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Forgets dead letters that were dealt with.
CREATE FUNCTION nodeledger.purge_dead_letters(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH old AS (
        SELECT d.id FROM nodeledger.dead_letter AS d
        WHERE d.last_seen < before AND d.state IN ('resolved', 'discarded')
        ORDER BY d.id
        LIMIT portion
        FOR UPDATE SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.dead_letter AS d USING old AS o WHERE d.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA nodeledger FROM PUBLIC;

SELECT nodeledger.prepare_entry_months(2);
