-- How many functions that fill the disk or the lock table the reader may call; as deploy/lib/everybody.sql takes them.
SELECT count(*)
FROM pg_proc AS p
WHERE
    p.pronamespace = 'pg_catalog'::regnamespace
    AND p.proname ~ '^(lo_|lowrite$|pg_(try_)?advisory_(xact_)?lock|pg_logical_emit_message$)'
    AND has_function_privilege($1::text, p.oid, 'EXECUTE');
