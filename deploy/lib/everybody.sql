-- What PostgreSQL lets every role do in a database it may connect to, and a reader must not: write large objects until
-- the disk is full, write to the log that replicas follow, and take advisory locks
-- until the lock table is full. Functions belong to each database by itself.
SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', p.oid::regprocedure)
FROM pg_proc AS p
WHERE
    p.pronamespace = 'pg_catalog'::regnamespace
    AND p.proname ~ '^(lo_|lowrite$|pg_(try_)?advisory_(xact_)?lock|pg_logical_emit_message$)'
\gexec
REVOKE ALL ON SCHEMA public FROM PUBLIC;
-- the migrations before 0011 take one, as the owner
GRANT EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint) TO nodeledger_owner;
