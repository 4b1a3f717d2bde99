-- The other sessions that hold something of the schema, the longest there first.
SELECT a.pid, a.usename::text AS role, a.application_name AS application
FROM pg_stat_activity AS a
WHERE
    a.pid <> pg_backend_pid()
    AND EXISTS (
        SELECT FROM pg_locks AS l
        JOIN pg_class AS c ON c.oid = l.relation
        WHERE l.pid = a.pid AND l.granted AND c.relnamespace = 'nodeledger'::regnamespace
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    )
ORDER BY a.backend_start
LIMIT 8;
