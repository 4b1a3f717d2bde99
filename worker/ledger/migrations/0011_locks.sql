-- Advisory locks are anybody's to take, so that a reader could hold up whoever waits for one. A lock on a table needs a
-- right to change it: the record of migrations is the owner's alone, and one session at a time changes the schema.

CREATE OR REPLACE FUNCTION nodeledger.prepare_entry_months(ahead integer) RETURNS integer
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
    LOCK TABLE nodeledger.migration IN SHARE ROW EXCLUSIVE MODE;
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

CREATE OR REPLACE FUNCTION nodeledger.carry_entries(before timestamptz, after_node text, portion integer) RETURNS text
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
    BEGIN
        LOCK TABLE nodeledger.migration IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    EXCEPTION
        WHEN lock_not_available THEN
            RETURN NULL;
    END;
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
